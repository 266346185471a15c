#!/usr/bin/perl

# The functions of mod_pgpool_dbd, called by a module that is compiled with mod_dbd.h and apr_dbd.h
# (mod_pgpool_consumer).  Labels of two virtual hosts with one pool; a transaction that the handler
# leaves open.

use PgPoolTest;

my $pg = postgres;
query($pg, 'CREATE TABLE thing (name text, number int)');
my $conninfo = conninfo($pg);

my @modules = qw(pgpool pgpool_dbd pgpool_consumer);
my $conf = <<"CONF";
DBDParams "$conninfo"
DBDMax 3
DBDExptime 60
DBDPrepareSQL "SELECT 'main'" Who-Am-I
<Location /all>
  SetHandler dbd-consumer
</Location>
<Location /lost>
  SetHandler dbd-lost
</Location>
<Location /named>
  SetHandler dbd-named
  PgPoolSet app.user "amy"
</Location>
<Location /outer>
  SetHandler dbd-outer
</Location>
<Location /brief>
  SetHandler dbd-brief
  PgPoolStatementTimeout 50ms
</Location>
<Location /kept>
  SetHandler dbd-kept
  PgPoolRelease auth
</Location>
<Location /hold>
  SetHandler dbd-hold
</Location>
<VirtualHost *>
  ServerName main
</VirtualHost>
<VirtualHost *>
  ServerName other
  DBDParams "$conninfo"
  DBDPrepareSQL "SELECT 'other'" Who-Am-I
  DBDPrepareSQL "SELECT 'alone'" alone
</VirtualHost>
<VirtualHost *>
  ServerName ends
  DBDParams "$conninfo application_name='ends in the hook'"
</VirtualHost>
CONF

my $numbers = '-5 250 -300 65000 -70000 4000000000 -5000000000 -9000000000000000000 '
    . '18000000000000000000 0.5 0.1 text null';
my $expected = <<"END";
same 1 other 1 kept 1 closed 1
name pgsql native 1 alive 0
open 1 dbname 1 labels 3 hook 1
random 0 2 3 n none
third 0 3 first 0 1 next 0 2 [] null 1 none -1
sequential 0 -1
rows 0 7
error 1 division by zero (SQLSTATE 22012)
prepare 0
pbselect 0 $numbers
pvbselect 0 $numbers
prepare 0
prepare 0
pselect 0 42x%
pvselect 0 2y%
pquery 0 1
pvquery 0 1
pbquery 0 1
pvbquery 0 1
query 0 3
missing 1
prepare 0
lobs 0
lob 0 4 7
lob 0 3 122
datums 0 1.5 -3
prepare 0
made 3 4 -1 -1 a LOB's length is negative or exceeds 2 GB
commit 0 0 0 0 t1
failed 0 0 0 1 1 0 t1
rollback 0 1 0 0 t1
ignoring 0 2 0 1 0 0 t1
mode 0
prepare 0
refused 0 0 1 0 t1
refused 0 0 1 0 t1
two 0 1 1
late 0 late
END

for my $mpm (Httpd::mpms()) {
    my $httpd = Httpd->new(mpm => $mpm, modules => \@modules, conf => $conf)->start;
    my $as = sub { my ($host, $path) = @_; finish($httpd->begin($path, headers => {Host => $host}))->{content} };

    is $as->($_, '/named'), "named 0 amy\n", "PgPoolSet holds although a post_connect hook undoes it ($_)" for qw(main other);
    is $as->('main', '/all'), $expected, "$mpm: each function";
    query($pg, 'DELETE FROM thing');
    is $as->('main', '/all'), $expected, 'again, on connections that were used';
    is $as->('main', '/all?Who-Am-I'), "Who-Am-I 0 main\n", 'a label';
    is $as->('other', '/all?Who-Am-I'), "Who-Am-I 0 other\n", 'the same label in another host';
    is $as->('other', '/all?alone'), "alone 0 alone\n", 'a label of one host';
    is $as->('main', '/all?alone'), "alone -2\n", '... is unknown in another';
    is $as->('other', '/all?late'), "late 0 late\n", 'a label that a module adds in post_config';
    like query($pg, q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'
        AND application_name <> 'ends in the hook'}),
        $mpm eq 'prefork' ? qr/./ : qr/^[1-4]$/, 'both hosts share one pool';

    is $httpd->get('/hold')->{content}, "0 0\n", 'a transaction that is left open';
    poll_until { query($pg, q{SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%'}) == 0 };
    is query($pg, q{SELECT count(*) FROM thing WHERE name = 'held'}), 0, 'it is rolled back';
    is $httpd->get("/lost$_")->{content}, "0 1 1 0 1\n", 'a transaction whose connection is lost' for '', '?asked';
    is $httpd->get('/kept')->{content}, "kept 1 1 1 1 the connection was given back to its pool\n",
        'what an early acquire gave, after its connection has been closed';
    is $httpd->get('/outer')->{content}, "inner 0 outer 0\n", 'PgPoolStatementTimeout is that of the request that runs';
    like $httpd->error_log, qr/PGP1012: .* is gone: its statement had no end within PgPoolStatementTimeout;/,
        '... and the log says why the connection is gone';
    is finish($httpd->begin('/named', headers => {Host => 'ends'}))->{status}, 503,
        'a post_connect hook that costs each connection is not called without end';
    $httpd->stop;
    query($pg, 'DELETE FROM thing');
}
done_testing;
