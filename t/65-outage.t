# Outages: requests wait for the end of a short one; in a long one, or if the server rejects
# connections, they are refused at once, with the cause.  And a dead connection makes older ones
# suspect.

use PgPoolTest;
use FaultProxy;
use Probe;
use List::Util qw(max);
use Time::HiRes qw(sleep);

# Seconds by which an answer may be late on a busy machine.
my $slack = 5;

my $pg = postgres("log_statement = all\nlog_line_prefix = '%p '");
my $proxy = FaultProxy->new($pg);

my $rows = <<'CONF';
<Location /rows>
  SetHandler pgpool-query
  PgPoolQuery "SELECT 1 AS one"
</Location>
CONF

# One child whose pool connects through the proxy, with further settings in the connection string.
sub proxied {
    my ($directives, %setting) = @_;
    my $conninfo = conninfo($pg, via($proxy), %setting);
    return probed("PgPoolConninfo \"$conninfo\"\n$directives\n$rows", modules => ['pgpool_query']);
}

# How often the log has a message since then.
sub told_in_log {
    my ($httpd, $from, $id) = @_;
    return scalar(() = $httpd->error_log($from) =~ /PGP$id:/g);
}

sub median {
    my @sorted = sort { $a <=> $b } @_;
    return $sorted[@sorted / 2];
}

subtest 'requests wait for the end of a restart' => sub {
    my $httpd = proxied("PgPoolMin 4\nPgPoolMax 6\nPgPoolAcquireTimeout 30s");
    my $from = $httpd->log_end;
    my $in_flight = start_probe($httpd, qw(acquire), 'sql=SELECT pg_sleep(60)', 'again', 'again');
    my $asleep = q{SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(60)'};
    ok poll_until { query($pg, $asleep) == 1 }, 'a query is under way';
    my $load = $httpd->load('/rows', clients => 7, record => 1);
    ok poll_until { told_in_log($httpd, $from, 1004) > 100 }, 'and other requests come and go';
    $pg->restart;
    my $up = now();
    ok poll_until { $httpd->get('/rows')->{status} == 200 }, 'the server is back';
    my @answer = $load->finish;
    my $told = let_go($in_flight);
    tells $told, { result => 'PGRES_FATAL_ERROR', again => ['ELOST', 0] },
        'the query under way fails, its request gets ELOST, and then a new connection';
    my $lost = told($told, 'pid');
    like $httpd->error_log($from), qr/PGP1012: pool default: backend $lost, pinned .*is gone/,
        '... the log names its backend';
    ok poll_until { $httpd->error_log($from) =~ /PGP1003: pool default, backend $lost: closed \(lost\)/ },
        '... and its close';
    my $failed = grep { $_->{status} != 200 } @answer;
    is $failed, told_in_log($httpd, $from, 1012) - 1, 'of the others only those in the middle of a query fail';
    cmp_ok $failed, '<=', 7, '... once each at most';
    is told_in_log($httpd, $from, 1011), 0, 'no acquire fails';
    cmp_ok max(map { $_->{began} } @answer), '>', $up, 'requests came before and after the restart';
    note "$failed failed of ", scalar @answer;
    $httpd->stop;
};

subtest 'eight seconds without a server' => sub {
    my $httpd = proxied("PgPoolMin 4\nPgPoolMax 6\nPgPoolRetry 100ms 1s");
    my $from = $httpd->log_end;
    my $load = $httpd->load('/rows', clients => 8, record => 1, pause => 0.005);
    ok poll_until { told_in_log($httpd, $from, 1004) > 100 }, 'eight clients';
    $pg->stop;
    my $down = now();
    my $known = poll_until { $httpd->error_log($from) =~ /PGP1011:/ && now() };
    my $answer = $httpd->get('/rows');
    is $answer->{status}, 503, 'refused';
    ok $answer->{headers}{'retry-after'}, '... with Retry-After';
    like $httpd->error_log($from),
        qr/PGP1011: pool default: no connection .* can be had: .*(?:closed the connection|Connection reset)/,
        '... and the cause in the log';
    sleep 0.1 while now() < $down + 8;
    $pg->start;
    my $up = now();
    ok poll_until { $httpd->get('/rows')->{status} == 200 }, 'service returns by itself';
    my $back = now();
    cmp_ok $back - $up, '<', 1 + $slack, '... within PgPoolRetry';
    sleep 0.5;    # of load, to see that it stays so
    my @answer = $load->finish;
    my $longest = max(map { $_->{seconds} } @answer);
    my @refused = grep { $_->{began} > $known + 0.5 && $_->{began} < $down + 8 } @answer;
    my $median = median(map { $_->{seconds} } @refused);
    cmp_ok $longest, '<', 2 + $slack, 'no request waits longer than PgPoolAcquireTimeout';
    cmp_ok $median, '<', 0.5, 'once the outage is known, no request waits';
    is_deeply [grep { $_->{status} != 200 && $_->{began} > $back } @answer], [],
        'nothing fails afterwards';
    note sprintf 'longest %.3f s, median once the outage is known %.1f ms', $longest, $median * 1000;
    $httpd->stop;
};

subtest 'few attempts, however many requests come' => sub {
    my $httpd = proxied("PgPoolMin 2\nPgPoolMax 6\nPgPoolAcquireTimeout 200ms\nPgPoolRetry 100ms 1s");
    my $from = $httpd->log_end;
    my $load = $httpd->load('/rows', clients => 8);
    $proxy->mode('reject');
    $proxy->drop;
    $httpd->wait_log(qr/PGP1011/, from => $from);
    my $before = $proxy->accepted;
    my $began = now();
    sleep 4;
    my $refused = sub { told_in_log($httpd, $from, 1011) };
    ok poll_until { $refused->() > 400 }, 'many requests are refused';
    my $attempts = $proxy->accepted - $before;
    my $seconds = now() - $began;
    # With full jitter below 1 s about two a second, and one every 100 ms that a request triggers.
    cmp_ok $attempts, '<', 15 * $seconds, 'but few attempts are made';
    cmp_ok $attempts, '>', 0, '... though some';
    $proxy->mode('pass');
    ok poll_until { $httpd->get('/rows')->{status} == 200 }, 'after the first success all requests are served';
    $load->stop;
    note "$attempts attempts in $seconds s, ", $refused->(), ' refusals';
    $httpd->stop;
};

# While a request waits, attempts stay at the first wait (50 ms) with 57P03; doubled waits would
# soon be far apart.
subtest 'a server that starts up' => sub {
    my $httpd = proxied("PgPoolMin 0\nPgPoolAcquireTimeout 60s\nPgPoolRetry 50ms 10min");
    my $from = $httpd->log_end;
    $proxy->mode('error=57P03');
    my $before = $proxy->accepted;
    my $waits = start_probe($httpd, qw(acquire), 'sql=SELECT 1');
    my $fast = poll_until { $proxy->accepted >= $before + 25 } 20;
    ok $fast, 'is tried again fast';
    $proxy->mode('pass');
    tells let_go($waits), { status => 0, value => 1 }, 'and the request that waited is served';
    like $httpd->error_log($from), qr/PGP1002: .*57P03.*trying again in 50 ms/, 'the log has the cause';
    $httpd->stop;
};

# All children's lines of a message at level warn or error.
sub lines_of {
    my ($httpd, $id) = @_;
    return $httpd->error_log =~ /^(.*pgpool:(?:error|warn)\] .*PGP$id:.*)$/mg;
}

# Test that there is one such line for all children.
sub told_once {
    my ($httpd, $id, $name) = @_;
    my @lines = lines_of($httpd, $id);
    is @lines, 1, $name or diag map { s/^\[/(/r . "\n" } @lines;
    return;
}

# Four children without requests: each backs off, and one of them logs the outage for all.
subtest 'a server that starts up for long' => sub {
    my $conninfo = conninfo($pg, via($proxy), sslmode => 'disable', gssencmode => 'disable');
    $proxy->mode('error=57P03');
    my $before = $proxy->accepted;
    my $httpd = probed(qq(PgPoolConninfo "$conninfo"\nPgPoolMin 2\nPgPoolRetry 50ms 1s\n$rows),
        modules => ['pgpool_query'], children => 4, threads => 4);
    my $began = now();
    sleep 0.1 while now() < $began + 6;
    my $attempts = $proxy->accepted - $before;
    my $seconds = now() - $began;
    # With full jitter below 1 s about two a second in each child; without a back-off 20.
    cmp_ok $attempts, '<', 4 * (10 + 4 * $seconds), "attempts are bounded: $attempts in $seconds s";
    cmp_ok $attempts, '>=', 4, '... but some';
    told_once($httpd, 1002, 'one line for all children');

    my $load = $httpd->load('/rows', clients => 8);
    ok poll_until { scalar lines_of($httpd, 1011) }, 'requests are refused';
    ok poll_until { $proxy->accepted >= $before + $attempts + 10 }, '... and trigger attempts';
    sleep 0.5;    # of load, in which no line may follow
    $load->stop;
    told_once($httpd, 1011, '... one line for all children');
    like $httpd->error_log, qr/PGP1011: .*57P03/, '... with the cause';

    $proxy->mode('pass');
    ok poll_until { probe($httpd, 'acquire')->{content} =~ /^status=0/ }, 'served when it is up';
    my $connected = sub { scalar(() = $httpd->error_log =~ /PGP1001:/g) };
    ok poll_until { $connected->() >= 8 }, '... by all children';
    told_once($httpd, 1008, 'one line for the end, for all children');
    told_once($httpd, 1002, '... and no second one for the beginning');
    $httpd->stop;
};

# Test that requests are refused at once.  The next attempt is 5 s away, and PgPoolAcquireTimeout
# would let a request wait for it.
sub refused_at_once {
    my ($sqlstate, $mend, %setting) = @_;
    my $httpd = proxied("PgPoolMin 0\nPgPoolAcquireTimeout 60s\nPgPoolRetry 50ms 5s", %setting);
    my $before = $proxy->accepted;
    for my $n (1 .. 3) {
        my $answer = probe($httpd, qw(acquire notes));
        tells $answer, { status => 'EUNAVAIL' }, "refused, acquire $n";
        cmp_ok told($answer, 'waited') / 1e6, '<', 30, '... at once';
        like told($answer, 'note.pgpool-error'), qr/SQLSTATE $sqlstate/, '... with the cause';
    }
    # libpq may try twice, with encryption and without.
    cmp_ok $proxy->accepted - $before, '<=', 2, 'one attempt';
    $mend->();
    ok poll_until { probe($httpd, 'acquire')->{content} =~ /^status=0/ }, 'served when it is mended';
    $httpd->stop;
    return;
}

subtest 'no such database' => sub {
    refused_at_once('3D000', sub { query($pg, 'CREATE DATABASE nowhere') }, dbname => 'nowhere');
};

subtest 'a wrong password' => sub {
    query($pg, q{CREATE ROLE guarded LOGIN PASSWORD 'before'});
    my $hba = $pg->data_dir . '/pg_hba.conf';
    Httpd::spew($hba, "local all guarded scram-sha-256\n" . Httpd::slurp($hba));
    $pg->reload;
    refused_at_once('28P01', sub { query($pg, q{ALTER ROLE guarded PASSWORD 'after'}) },
        user => 'guarded', password => 'after');
};

# The number of pings (empty statements) in the server's log since then, by backend.
sub pings {
    my ($from) = @_;
    my %ping;
    $ping{$_}++ for substr(Httpd::slurp($pg->logfile), $from) =~ /^(\d+) LOG:  statement: $/mg;
    return \%ping;
}

subtest 'one dead connection makes the older ones suspect' => sub {
    my $httpd = proxied("PgPoolMin 4\nPgPoolMax 4\nPgPoolReset transaction\nPgPoolPing off");
    my @held = map { hold($httpd, qw(acquire gate)) } 1 .. 4;
    # One by one, so that the last one is lent next.
    my @pid = map { told(let_go($_), 'pid') } @held;
    my $from = -s $pg->logfile;
    tells probe($httpd, 'acquire', 'sql=SELECT 1'), { pid => $pid[3], value => 1 }, 'the newest is lent';
    is_deeply pings($from), {}, '... without a ping';

    query($pg, "SELECT pg_terminate_backend($pid[3], 10000)");
    $from = -s $pg->logfile;
    @held = map { hold($httpd, qw(acquire gate), 'sql=SELECT 1') } 1 .. 4;
    is_deeply pings($from), { map { $_ => 1 } @pid[0 .. 2] },
        'after its death the others are pinged, but not the new one';
    tells $_, { status => 0, value => 1 }, '... and work' for map { let_go($_) } @held;

    $from = -s $pg->logfile;
    let_go(map { hold($httpd, qw(acquire gate)) } 1 .. 4);
    is_deeply pings($from), {}, '... once';
    $httpd->stop;
};

# Without the proxy, which would listen all the time.
subtest 'the first request after the outage is served' => sub {
    my $conninfo = conninfo($pg);
    my $httpd = probed("PgPoolConninfo \"$conninfo\"\nPgPoolAcquireTimeout 3s\nPgPoolRetry 100ms 1h");
    my $status = sub { told(probe($httpd, 'acquire'), 'status') };
    is $status->(), 0, 'up';
    $pg->stop;
    # Each failed probe moves the keeper's own next attempt to a later time.
    my $refusals = 0;
    ok poll_until { $status->() eq 'EUNAVAIL' and ++$refusals == 20 }, 'refused time and again';
    $pg->start;
    is $status->(), 0, 'the first is served';
    $httpd->stop;
};

subtest 'an outage without requests' => sub {
    my $httpd = proxied("PgPoolMin 2\nPgPoolMax 4\nPgPoolRetry 20ms 200ms");
    my $connected = sub { told_in_log($httpd, 0, 1001) };
    ok poll_until { $connected->() == 2 }, 'two connections are idle';
    $pg->stop;
    $httpd->wait_log(qr/PGP1006: .* was closed by the server while idle/);
    $httpd->wait_log(qr/PGP1002: .* cannot connect/);
    pass 'their end is seen';
    $pg->start;
    $httpd->wait_log(qr/PGP1008: .* answers again/);
    ok poll_until { $connected->() == 4 }, '... and they are replaced before the next request';
    tells probe($httpd, 'acquire', 'sql=SELECT 1'), { status => 0, value => 1 }, 'which is served';
    $httpd->stop;
};

done_testing;
