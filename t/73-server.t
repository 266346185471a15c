#!/usr/bin/perl

# Many pools, one server: an idle connection of one pool gives way to a request of another, at
# PgPoolServerMax or when the server itself has no connection left.

use PgPoolTest;

my $pg = postgres("max_connections = 20\nsuperuser_reserved_connections = 3\n");
query($pg, 'CREATE ROLE web LOGIN');
query($pg, 'CREATE ROLE small LOGIN CONNECTION LIMIT 1');
query($pg, 'CREATE DATABASE narrow CONNECTION LIMIT 1');
my $pools = 60;

sub pools_of {
    my ($n) = @_;
    return join '', map { <<"POOL" } 1 .. $n;
<PgPool p$_>
</PgPool>
<Location /p$_>
  SetHandler pgpool-query
  PgPoolUse p$_
  PgPoolQuery "SELECT $_ AS n FROM pg_sleep(0.002)"
</Location>
POOL
}

sub served_by {
    my ($conf, %option) = @_;
    my $conninfo = conninfo($pg, application_name => 'many', user => 'web');
    return httpd(<<"CONF", modules => [qw(pgpool pgpool_query)], threads => 16, %option);
PgPoolConninfo "$conninfo"
PgPoolAcquireTimeout 30s
$conf
CONF
}

sub each_in_turn {
    my ($httpd, $rounds) = @_;
    my %seen;
    for my $round (1 .. $rounds) {
        $seen{ $httpd->get("/p$_")->{status} }++ for 1 .. $pools;
    }
    return \%seen;
}

subtest "$pools pools, a server that takes 17 connections" => sub {
    my $httpd = served_by(pools_of($pools));
    is_deeply each_in_turn($httpd, 3), { 200 => 3 * $pools }, 'each pool serves its requests';
    cmp_ok backends($pg, 'many'), '<=', 17, 'with 17 connections at most';
    $httpd->stop;
    ok poll_until { backends($pg, 'many') == 0 }, 'no backend is left';
};

subtest '... in two children' => sub {
    my $httpd = served_by(pools_of($pools), children => 2);
    is_deeply each_in_turn($httpd, 2), { 200 => 2 * $pools }, 'each pool serves its requests';
    $httpd->stop;
};

subtest 'PgPoolServerMax' => sub {
    my $httpd = served_by("PgPoolServerMax 5\n" . pools_of($pools), children => 2);
    my $most = 0;
    my %seen;
    for (1 .. 2 * $pools) {
        $seen{ $httpd->get('/p' . (1 + $_ % $pools))->{status} }++;
        my $open = $_ % 10 ? 0 : backends($pg, 'many');
        $most = $open if $open > $most;
    }
    is_deeply \%seen, { 200 => 2 * $pools }, 'each pool serves its requests';
    cmp_ok $most, '<=', 5, 'never more than the cap';
    my @load = map { $httpd->load("/p$_", clients => 1, keep_alive => 1) } 1 .. 12;
    my $until = now() + 3;
    while (now() < $until) {
        my $open = backends($pg, 'many');
        $most = $open if $open > $most;
    }
    my @busy = map { $_->stop } @load;
    is_deeply [map { join ' ', sort keys %$_ } @busy], [(200) x 12], 'twelve busy pools share five connections';
    cmp_ok $most, '<=', 5, '... and no more';
    $httpd->stop;
    ok poll_until { backends($pg, 'many') == 0 }, 'no backend is left';
};

# The limit of a role or of a database has the same SQLSTATE, but a connection of another pool would
# not help: none gives way.
for my $limited ([ role => (user => 'small') ], [ database => (user => 'web', dbname => 'narrow') ]) {
    my ($name, %setting) = @$limited;
    subtest "connection limit of a $name" => sub {
        my $of_its_own = conninfo($pg, application_name => 'limited', %setting);
        my $httpd = served_by(<<"POOL" . pools_of(8));
PgPoolMin 0
<PgPool limited>
  PgPoolConninfo "$of_its_own"
  PgPoolMax 2
</PgPool>
<Location /limited>
  SetHandler pgpool-query
  PgPoolUse limited
  PgPoolQuery "SELECT 1 AS n FROM pg_sleep(1)"
</Location>
POOL
        $httpd->get("/p$_") for 1 .. 8;
        my $others = backends($pg, 'many');
        is $others, 8, 'eight pools have a connection';
        my $load = $httpd->load('/limited', clients => 2, keep_alive => 1);
        $httpd->wait_log(qr/too many connections for $name/);
        my $until = now() + 2;
        my $fewest = $others;
        while (now() < $until) {
            my $open = backends($pg, 'many');
            $fewest = $open if $open < $fewest;
        }
        $load->stop;
        is $fewest, $others, '... and keep it while a pool is refused';
        $httpd->stop;
    };
}

done_testing;
