#!/usr/bin/perl

# PgPoolTotalMax: all children together never have more connections than that, at the server's own
# count, whatever happens to the children; and whoever lacks one is given it.

use PgPoolTest;

my $pg = postgres("max_connections = 60\n");
query($pg, <<'SQL');
CREATE FUNCTION most_seen(seconds float) RETURNS int LANGUAGE plpgsql AS $$
DECLARE
    most int := 0;
    until timestamptz := clock_timestamp() + seconds * interval '1 second';
BEGIN
    WHILE clock_timestamp() < until LOOP
        PERFORM pg_stat_clear_snapshot();
        most := greatest(most, (SELECT count(*) FROM pg_stat_activity WHERE application_name = 'capped'));
        PERFORM pg_sleep(0.002);
    END LOOP;
    RETURN most;
END $$
SQL

my $conninfo = conninfo($pg, application_name => 'capped');

sub capped {
    my ($conf, %option) = @_;
    return httpd(<<"CONF", modules => [qw(authz_core pgpool pgpool_query pgpool_probe)], children => 4, %option);
PgPoolConninfo "$conninfo"
PgPoolAcquireTimeout 20s
$conf
<Location /short>
  SetHandler pgpool-query
  PgPoolQuery "SELECT pg_sleep(0.002)"
</Location>
<Location /probe>
  SetHandler pgpool-probe
</Location>
CONF
}

# The greatest count that the server has seen meanwhile.
sub most_seen_in { my ($seconds) = @_; return query($pg, "SELECT most_seen($seconds)") }

subtest 'under load' => sub {
    my $httpd = capped("PgPoolMax 32\nPgPoolTotalMax 10", threads => 16);
    my $load = $httpd->load('/short', clients => 64, keep_alive => 1);
    my $most = most_seen_in(5);
    my $seen = $load->stop;
    is_deeply [keys %$seen], [200], 'no request fails';
    cmp_ok $most, '<=', 10, 'never more than the cap';
    cmp_ok $most, '>',  5,  'but not far from it';
    $httpd->stop;
};

subtest 'while generations change and children die' => sub {
    my $httpd = capped("PgPoolMax 32\nPgPoolTotalMax 10", threads => 16);
    my $load = $httpd->load('/short', clients => 16);
    my $most = 0;
    for my $round (1 .. 4) {
        my $seen = most_seen_in(1);
        $most = $seen if $seen > $most;
        $round == 3 ? $httpd->kill_child('KILL') : $httpd->graceful;
        $httpd->wait_complete;
    }
    my $seen = most_seen_in(2);
    $most = $seen if $seen > $most;
    my $answers = $load->stop;
    cmp_ok $most, '<=', 10, 'never more than the cap';
    # Only the killed child's own requests in flight fail: at most all clients once.
    my $failed = 0;
    $failed += $answers->{$_} for grep { $_ != 200 } keys %$answers;
    cmp_ok $failed, '<=', 16, 'nearly no request fails' or diag explain $answers;

    my $all = $httpd->load('/short', clients => 32);
    ok poll_until { most_seen_in(0.5) == 10 }, 'and afterwards the cap is whole again';
    $all->stop;
    $httpd->stop;
    ok poll_until { backends($pg, 'capped') == 0 }, 'nothing is left';
};

# Children that are asked in turn: the probe tells which one answered.
sub held_by_one {
    my ($httpd, $n) = @_;
    return map { $httpd->begin("/probe?acquire&touch=" . $httpd->dir . "/held$_&hold=" . $httpd->dir . '/free') } 1 .. $n;
}

subtest 'what others keep idle is given up' => sub {
    my $httpd = capped("PgPoolMin 4\nPgPoolMax 4\nPgPoolTotalMax 4", threads => 16, children => 2);
    # One child, or both, have taken all permits for their Min, and sit on them.
    ok poll_until { backends($pg, 'capped') == 4 }, 'all permits are taken';
    my @held = held_by_one($httpd, 4);
    ok poll_until { 4 == grep { -e } map { $httpd->dir . "/held$_" } 1 .. 4 },
        'whoever asks gets one, in whatever child';
    Httpd::spew($httpd->dir . '/free', '');
    is_deeply [map { $_->{status} } finish(@held)], [(200) x 4], 'and all are served';
    $httpd->stop;
};

subtest 'the cap is reached' => sub {
    my $httpd = capped("PgPoolMin 0\nPgPoolMax 8\nPgPoolTotalMax 2\nPgPoolAcquireTimeout 300ms", threads => 16);
    my @held = held_by_one($httpd, 2);
    ok poll_until { 2 == grep { -e } map { $httpd->dir . "/held$_" } 1 .. 2 }, 'two have all there are';
    my $answer = $httpd->get('/short');
    is $answer->{status}, 503, 'the next is refused';
    $httpd->wait_log(qr/PGP1011: .* all 2 connections that PgPoolTotalMax allows are taken/);
    pass '... and the log says why';
    Httpd::spew($httpd->dir . '/free', '');
    finish(@held);
    ok poll_until { $httpd->get('/short')->{status} == 200 }, 'when they are back it is served';
    $httpd->stop;
};

subtest 'more than the server has' => sub {
    my $httpd = capped("PgPoolMax 32\nPgPoolTotalMax 100");
    $httpd->wait_log(qr/PGP1018: pool default: may ask for 100 connections .* takes only 57/);
    pass 'is warned of, with numbers';
    $httpd->stop;
};

done_testing;
