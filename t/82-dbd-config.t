#!/usr/bin/perl

# mod_pgpool_dbd: its directives, and its LoadModule; PgPoolRelease auth; graceful restarts under
# requests that authenticate.

use PgPoolTest;
use Digest::SHA qw(sha1_base64);
use IO::Socket::INET;
use MIME::Base64 qw(encode_base64);
use Load;
use Probe;

my @modules = qw(pgpool pgpool_dbd);
my $bridge = Httpd->new(modules => \@modules);
my $params = 'DBDParams "host=db dbname=app password=hidden"';

# Test that httpd refuses a configuration, with this hint.
sub refused {
    my ($name, $httpd, $text, $hint) = @_;
    my ($code, $output) = $httpd->conf($text)->config_test;
    is $code, 1, $name;
    like $output, $hint, '... and says what is wrong';
    return;
}

refused('another driver', $bridge, 'DBDriver mysql',
    qr/on line \d+.*\nDBDriver mysql: mod_pgpool_dbd gives out PostgreSQL connections and takes only "DBDriver pgsql"/);
refused('a bad number', $bridge, 'DBDMax many', qr/DBDMax sets PgPoolMax of <PgPool dbd>: /);
refused('a bad time', $bridge, 'DBDExptime 5min', qr/DBDExptime takes a number of seconds, not "5min"/);
refused('DBDKeep', $bridge, 'DBDKeep -1', qr/DBDKeep takes a number of connections, not "-1"/);
refused('parameters of another database', $bridge, 'DBDParams "db.example.org,app"',
    qr/DBDParams sets PgPoolConninfo of <PgPool dbd>: .*connection string/);
refused('Min above Max', $bridge, "$params\nDBDMin 5\nDBDMax 4", qr/httpd\.conf:\d+: pool dbd: PgPoolMin/);
refused('no such pool', $bridge, 'DBDPool none', qr/httpd\.conf:\d+: DBDPool none: there is no <PgPool none>/);
refused('a pool without parameters', $bridge, 'DBDMax 3', qr/pool dbd has no PgPoolConninfo/);

my $alone = Httpd->new(modules => ['pgpool_dbd']);
refused('a directive without mod_pgpool', $alone, $params, qr/mod_pgpool, which is not loaded: write "LoadModule pgpool_module/);
refused('no directive, without mod_pgpool', $alone, '', qr/mod_pgpool, which is not loaded: write "LoadModule pgpool_module/);

sub dump_of {
    my ($text) = @_;
    my ($code, $output) = $bridge->conf($text)->config_test('-DDUMP_PGPOOL');
    is $code, 0, 'taken';
    return $output;
}

my $all = dump_of(<<"CONF");
PgPoolMax 20
<IfModule mod_dbd.c>
<IfModule dbd_module>
DBDriver pgsql
$params
DBDMin 1
DBDKeep 2
DBDMax 6
DBDExptime 90
DBDInitSQL "SET a.b = 'c'"
DBDPersist Off
DBDPrepareSQL "SELECT 1" one
</IfModule>
</IfModule>
<PgPool dbd>
PgPoolMin 3
</PgPool>
CONF
like $all, qr/<PgPool dbd>/, 'the directives define <PgPool dbd>';
like $all, qr/^\s+$_\s+# /m, $_ for 'PgPoolMax +6', 'PgPoolMin +3', 'PgPoolIdleTimeout +90s',
    'PgPoolReset +close', q{PgPoolInitSQL +.*SET a.b.*};
like $all, qr/PgPoolMax +6 +# .*httpd\.conf:\d+/, 'with their lines';
unlike $all, qr/hidden/, 'no password is shown';
like dump_of("PgPoolConninfo host=db\n<PgPool other>\n</PgPool>\nDBDPool other"), qr/<PgPool other>/,
    'DBDPool names an existing pool';

# httpd itself skips a second module of the same symbol, with a warning.
my ($code, $output) = Httpd->new(modules => [qw(pgpool pgpool_dbd dbd)])->config_test;
like $output, qr/module dbd_module is already loaded, skipping/, 'beside mod_dbd: httpd takes one of them';

# ---- in operation

my $pg = postgres;
query($pg, 'CREATE TABLE account (name text PRIMARY KEY, password text)');
query($pg, 'CREATE TABLE seen (mpm text)');
query($pg, "INSERT INTO account VALUES ('amy', '{SHA}" . sha1_base64('x') . "=')");
my %login = (headers => {Authorization => 'Basic ' . encode_base64('amy:x', '')});
my $conninfo = conninfo($pg);

sub authenticating {
    my ($conf, %option) = @_;
    return Httpd->new(modules => [@modules, qw(auth_basic authn_dbd authz_user pgpool_probe)], %option,
        conf => <<"CONF")->start;
PgPoolConninfo "$conninfo"
DBDParams "$conninfo"
$conf
<Location />
  AuthType Basic
  AuthName x
  AuthBasicProvider dbd
  AuthDBDUserPWQuery "SELECT password FROM account WHERE name = %s"
  Require valid-user
</Location>
<LocationMatch ^/(kept|early|quick)>
  SetHandler pgpool-probe
</LocationMatch>
<Location /early>
  PgPoolRelease auth
</Location>
<Location /early/outer>
  PgPoolUse dbd
</Location>
<Location /early/page>
  ErrorDocument 401 /denied.html
</Location>
<Location /early/closed>
  Require all denied
</Location>
<Location /denied.html>
  Require all granted
</Location>
CONF
}

# The pool of the logins has one connection, and no request waits for it.  Returns the status of a
# request that logs in while another one's handler sleeps.
sub asked_beside {
    my ($httpd, $path) = @_;
    my $sleep = q{FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep(60)%' AND state = 'active'};
    my $busy = $httpd->begin(probe_at('query=SELECT pg_sleep(60)') =~ s/probe/$path/r, %login);
    poll_until { query($pg, "SELECT count(*) $sleep") == 1 } or return 'the handler does not sleep';
    my $status = $httpd->get('/quick', \%login)->{status};
    query($pg, "SELECT pg_cancel_backend(pid) $sleep");
    finish($busy);
    return $status;
}

# The same while httpd reads the body of a request whose login has failed; the body never ends.
sub asked_beside_body {
    my ($httpd, $path) = @_;
    my $from = $httpd->log_end;
    my $wrong = 'Basic ' . encode_base64('amy:wrong', '');
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $httpd->port) or die "connect: $!";
    print {$socket} "POST /$path HTTP/1.1\r\nHost: x\r\nAuthorization: $wrong\r\nContent-Length: 1000\r\n\r\nfew";
    $socket->flush;
    $httpd->wait_log(qr/AH01617: user amy: authentication failure/, from => $from);
    poll_until { $httpd->get('/quick', \%login)->{status} == 200 } 5;
    my $status = $httpd->get('/quick', \%login)->{status};
    close $socket;
    return $status;
}

# Not in prefork, where a child has one request at a time.
for my $mpm (grep { $_ ne 'prefork' } Httpd::mpms()) {
    my $httpd = authenticating(<<'CONF', mpm => $mpm);
DBDMax 1
<PgPool dbd>
PgPoolAcquireTimeout 0
</PgPool>
CONF
    $httpd->put_file('denied.html', 'No.');
    poll_until { $httpd->get('/quick', \%login)->{status} == 200 };
    is asked_beside($httpd, 'kept'), 500, "$mpm: a login holds its connection while the handler works";
    is asked_beside($httpd, 'early'), 200, 'PgPoolRelease auth: the connection is back when the handler begins';
    is asked_beside_body($httpd, 'early'), 200, '... and when the login has failed';
    is asked_beside_body($httpd, 'early/page'), 200, '... with a page of its own for that';
    my @transaction = ('acquire', 'sql=BEGIN', "sql=INSERT INTO seen VALUES ('$mpm')", 'through=/early/closed', qw(acquire sql=COMMIT));
    $httpd->get(probe_at(@transaction) =~ s{probe}{early/outer}r, \%login);
    is query($pg, "SELECT count(*) FROM seen WHERE mpm = '$mpm'"), 1,
        '... but an outer handler keeps its connection over an inner error';
    $httpd->stop;
}

for my $mpm (Httpd::mpms()) {
    my $httpd = authenticating('DBDMax 4', mpm => $mpm, children => 2);
    my $load = Load->new($httpd->url('/quick') =~ s{//}{//amy:x@}r, clients => 4);
    $httpd->graceful for 1 .. 3;
    is_deeply [keys %{ $load->stop }], [200], 'three graceful restarts under logins: nothing fails';
    $httpd->stop;
}
done_testing;
