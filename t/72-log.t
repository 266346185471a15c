#!/usr/bin/perl

# The log for an operator: long leases, the causes of failures, and no line a thousand times.

use PgPoolTest;
use FakeServer qw(conninfo_of say_message);
use Probe qw(probe told tells hold let_go);

my $pg = postgres;
my $conninfo = conninfo($pg);

# An MPM with threads, so that one child has several requests.
my $mpm = ($ENV{PGPOOL_MPM} // '') eq 'worker' ? 'worker' : 'event';

sub probed {
    my ($conf) = @_;
    return httpd(<<"CONF", modules => [qw(authz_core pgpool pgpool_query pgpool_probe)], threads => 16, mpm => $mpm);
PgPoolConninfo "$conninfo"
$conf
<Location /probe>
  SetHandler pgpool-probe
</Location>
CONF
}

sub count_of {
    my ($pattern, $text) = @_;
    return scalar(() = $text =~ /$pattern/g);
}

subtest 'version' => sub {
    my $header = Httpd::slurp('mod_pgpool/mod_pgpool.h');
    my ($version) = $header =~ /^#define PGPOOL_VERSION "(\d+\.\d+\.\d+)"$/m;
    my ($number) = $header =~ /^#define PGPOOL_VERSION_NUM (\d+)$/m;
    is $number, sprintf('%d', join '', map { sprintf '%02d', $_ } split /\./, $version), 'the same in words and as a number';
    my $httpd = httpd("<Location /pools>\n  SetHandler pgpool-status\n</Location>");
    my $line = qr/:notice\] .* PGP1000: mod_pgpool \Q$version\E with libpq \d+\.\d+$/m;
    is count_of($line, $httpd->error_log), 1, 'is logged once at the start';
    $httpd->graceful;
    is count_of($line, $httpd->error_log), 2, '... and at a restart';
    like $httpd->get('/pools')->{content}, qr{mod_pgpool \Q$version\E\.</p></footer>}, 'stands at the foot of the page';
    $httpd->stop;
};

subtest 'PgPoolHoldWarning' => sub {
    my $httpd = probed('PgPoolHoldWarning 100ms');
    my $free = $httpd->dir . '/free';
    my $held = $httpd->begin("/probe?acquire&sql=SELECT+'secret'&hold=$free");
    my $line = qr/PGP1016: pool default, backend \d+: has been held for \d+ s by GET \/probe \(pgpool-probe\) for 127\.0\.0\.1/;
    $httpd->wait_log($line);
    pass 'names the borrower';
    # The keeper makes a round at least once a second, so it could have logged the first lease twice
    # by then.
    my $from = $httpd->log_end;
    $httpd->get('/probe?acquire&sleep=1.5');
    $httpd->wait_log(qr/PGP1016/, from => $from);
    is count_of($line, $httpd->error_log), 2, 'once each';
    unlike $httpd->error_log, qr/secret/, 'without the query string';
    Httpd::spew($free, '');
    $held->finish;
    $httpd->stop;
};

subtest 'refusals' => sub {
    my $httpd = probed("PgPoolMin 1\nPgPoolMax 1\nPgPoolAcquireTimeout 0");
    ok poll_until { $httpd->get('/probe?acquire')->{content} =~ /^status=0/m }, 'a connection is there';
    my $free = $httpd->dir . '/free';
    my $mark = $httpd->dir . '/mark';
    my $held = $httpd->begin("/probe?acquire&touch=$mark&hold=$free");
    ok poll_until { -e $mark }, 'the only connection is lent';
    my @refused = grep { $_->{content} =~ /EEXHAUSTED/ } map { $httpd->get('/probe?acquire') } 1 .. 50;
    is scalar @refused, 50, 'others are refused';
    is count_of(qr/pgpool:error\] .*PGP1011.*are in use/, $httpd->error_log), 1, '... with one line at level error';
    is count_of(qr/pgpool:debug\] .*PGP1011.*are in use/, $httpd->error_log), 49, '... and the others at level debug';
    Httpd::spew($free, '');
    $held->finish;
    $httpd->stop;
};

subtest 'notes in expressions' => sub {
    my $httpd = httpd(<<"CONF", modules => [qw(authz_core headers pgpool pgpool_probe)], mpm => $mpm);
PgPoolConninfo "$conninfo"
PgPoolMax 1
LogFormat "%U" path
CustomLog "\${DIR}/waited" path "expr=%{note:pgpool-default-wait} -gt 0"
Header always set X-Cause "expr=%{note:pgpool-error}" "expr=%{note:pgpool-error} != ''"
<LocationMatch "^/">
  SetHandler pgpool-probe
</LocationMatch>
CONF
    $httpd->get('/warm?acquire');
    $httpd->get('/first?acquire');
    my ($mark, $free) = map { $httpd->dir . "/$_" } qw(mark free);
    my $holds = $httpd->begin("/holds?acquire&touch=$mark&hold=$free");
    ok poll_until { -e $mark }, 'the only connection is lent';
    my $fails = $httpd->get('/fails?acquire');
    Httpd::spew($free, '');
    my ($held) = finish($holds);
    like $fails->{headers}{'x-cause'}, qr/all 1 connections are in use/, 'a header has the cause of a failure';
    ok !$held->{headers}{'x-cause'}, '... and only then';
    $httpd->stop;
    unlike Httpd::slurp($httpd->dir . '/waited'), qr{/first|/holds}, 'requests that have not waited are not in the log of waits';
    like Httpd::slurp($httpd->dir . '/waited'), qr{/fails}, '... requests that have waited are';
};

# The server's last message before it ends a connection is still in the socket.
subtest 'why a connection ended' => sub {
    my $httpd = probed(<<"CONF");
PgPoolReset transaction
<PgPool undone>
  PgPoolReset session
</PgPool>
<PgPool idle>
  PgPoolConninfo "$conninfo options='-c idle_session_timeout=100'"
  PgPoolMin 1
  PgPoolMax 1
</PgPool>
<PgPool open>
  PgPoolConninfo "$conninfo options='-c idle_in_transaction_session_timeout=100'"
</PgPool>
CONF
    my $why = qr/terminating connection due to idle-session timeout \(SQLSTATE 57P05\)/;
    $httpd->wait_log(qr/PGP1006: pool idle, backend \d+: .*while idle.*: $why/);
    pass 'while it was idle: 57P05';

    $why = qr/terminating connection due to idle-in-transaction timeout \(SQLSTATE 25P03\)/;
    my $told = probe($httpd, qw(acquire=open sql=BEGIN sleep=1 again=open));
    tells $told, { again => 'ELOST' }, 'a transaction was left open for too long';
    like $httpd->error_log, qr/PGP1012: pool open: .*is gone: $why/, '... 25P03 in the log';
    my $from = $httpd->log_end;
    probe($httpd, qw(acquire=open sql=BEGIN sleep=1));
    $httpd->wait_log(qr/PGP1006: pool open, backend \d+: .*: $why/, from => $from);
    pass '... and without another acquire';

    $why = qr/.*terminating connection due to administrator command.* \(SQLSTATE 57P01\)/;
    for my $doing ('sql=SELECT 1', 'send=SELECT pg_sleep(60)') {
        $from = $httpd->log_end;
        my $held = hold($httpd, 'acquire', $doing, 'gate', 'again');
        kill_backends($pg);
        tells let_go($held), { again => 'ELOST' }, "terminated after $doing";
        like $httpd->error_log($from), qr/PGP1012: pool default: .*is gone: $why/, '... 57P01 in the log';
    }

    # Either the next request or the keeper notices the end.
    for my $pool (qw(default undone)) {
        probe($httpd, "acquire=$pool");
        $from = $httpd->log_end;
        kill_backends($pg);
        tells probe($httpd, "acquire=$pool"), { status => 0 }, "pool $pool: terminated while idle";
        like $httpd->error_log($from), qr/PGP1006: pool $pool, backend \d+: .*: $why/, '... 57P01 in the log';
    }
    $httpd->stop;
};

# A header with a line break in it would make httpd answer an empty 500.
subtest "a cause in the server's words is clean text" => sub {
    query($pg, q{CREATE FUNCTION fails() RETURNS int LANGUAGE plpgsql AS
        $$ BEGIN RAISE EXCEPTION E'one\r\ntwo\001 caf\u00e9'; END $$});
    my $server = FakeServer->new(sub {
        my ($session) = @_;
        sysread $session, my $startup, 1000;
        say_message($session, E => "SFATAL\0VFATAL\0C53300\0Mno\r\nroom\001 \xff here\0\0");
    });
    my $httpd = httpd(<<"CONF", modules => [qw(authz_core headers pgpool pgpool_query pgpool_probe)]);
PgPoolConninfo "$conninfo"
<PgPool full>
  PgPoolConninfo "@{[conninfo_of($server)]}"
  PgPoolAcquireTimeout 100ms
</PgPool>
Header always set X-Cause "expr=%{note:pgpool-error}" "expr=%{note:pgpool-error} != ''"
<Location /fails>
  SetHandler pgpool-query
  PgPoolQuery "SELECT fails()"
</Location>
<Location /none>
  SetHandler pgpool-query
</Location>
<Location /most>
  SetHandler pgpool-query
  PgPoolQuery "SELECT 'long'"
  PgPoolQueryMaxSize 1
</Location>
<Location /probe>
  SetHandler pgpool-probe
</Location>
CONF
    like $httpd->get('/none')->{headers}{'x-cause'}, qr/\APgPoolQuery: there is none for this location\z/, 'PGP2001';
    like $httpd->get('/most')->{headers}{'x-cause'}, qr/\APgPoolQuery: .*PgPoolQueryMaxSize/, 'PGP2002';
    my $fails = $httpd->get('/fails');
    like $fails->{headers}{'x-cause'},
        qr/\Apool default: backend \d+: the server refused the statement: SQLSTATE P0001: one  two  caf\xc3\xa9\z/,
        "a statement's error (PGP1020)";
    like $fails->{content}, qr/400 Bad Request/, '... is no empty answer';
    for my $n (1, 2) {
        my $full = $httpd->get('/probe?acquire=full&again=full&httpstatus');
        is $full->{status}, 503, "a refused connection, acquire $n";
        like $full->{headers}{'x-cause'}, qr/\Apool full: .*no; room  \? here.* \(SQLSTATE 53300, /, '... and why';
    }
    $httpd->stop;
};

subtest 'pgpool_open in an outage' => sub {
    my $down = probed(join("\n", 'PgPoolConninfo "host=/nowhere"', 'PgPoolMin 0', 'PgPoolAcquireTimeout 0'), threads => 2);
    tells probe($down, ('open') x 20), { status => [('EUNAVAIL') x 20] }, 'twenty calls fail';
    is scalar(() = $down->error_log =~ /\bpgpool:error\b.* PGP1011: pool default:/g), 1, '... with one line at error';
    $down->stop;
};

done_testing;
