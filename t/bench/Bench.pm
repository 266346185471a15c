package Bench;

# What the parts of the bench have in common: a server, an httpd with both modules, and a table.
#
#   my $httpd = bench_httpd(conninfo(server), 8, location('dbd', 'bench-dbd'));
#   title('what is measured', 'mod_dbd', 'mod_pgpool');
#   line('requests/s', 10_000, 11_000);

use strict;
use warnings;

use IO::Handle;

# The rig sends STDOUT to its log when the program begins.
my $table;
BEGIN { open $table, '>&', \*STDOUT or die "stdout: $!"; $table->autoflush }

use PgPoolTest;

use Exporter 'import';
our @EXPORT = qw(server bench_httpd bridged_httpd location median title line);

my $server;

# The rig's writes each statement to its log, unless it is told not to.
sub server { return $server //= postgres("max_connections = 200\nlog_statement = none\n") }

# mod_dbd gets its connections as mod_pgpool does: all from the start, kept, none too many.  There
# are threads enough for the requests that the load before has left behind.
sub bench_httpd {
    my ($conninfo, $connections, @conf) = @_;
    poll_until { backends(server()) == 0 } or die "connections of before are still there\n";
    my @module = qw(dbd pgpool pgpool_query pgpool_bench);
    my $httpd = httpd(<<"CONF", modules => \@module, threads => 100);
LogLevel warn
MaxKeepAliveRequests 0
PgPoolConninfo "$conninfo"
PgPoolMin $connections
PgPoolMax $connections
DBDriver pgsql
DBDParams "$conninfo"
DBDPersist On
DBDMin $connections
DBDKeep $connections
DBDMax $connections
BenchConninfo "$conninfo"
@{[join '', @conf]}
CONF
    poll_until { backends(server()) >= 2 * $connections } or die "the pools do not fill\n";
    return $httpd;
}

# One whose consumers of mod_dbd use this module: dbd or pgpool_dbd.
sub bridged_httpd {
    my ($conninfo, $connections, $module, $conf) = @_;
    my @module = ('pgpool', $module, qw(auth_basic authn_dbd authz_user rewrite));
    my $httpd = httpd(<<"CONF", modules => \@module, threads => 100);
LogLevel crit
MaxKeepAliveRequests 0
DBDriver pgsql
DBDParams "$conninfo application_name=$module"
DBDMin $connections
DBDKeep $connections
DBDMax $connections
$conf
CONF
    $httpd->put_file('page.txt', "page\n");
    mkdir $httpd->dir . '/htdocs/login' or die "login: $!";
    $httpd->put_file('login/page.txt', "page\n");
    poll_until { backends(server(), $module) >= $connections } or die "the pool does not fill\n";
    return $httpd;
}

sub location {
    my ($path, $handler, @directive) = @_;
    return join "\n", "<Location /$path>", "SetHandler $handler", @directive, "</Location>\n";
}

sub median {
    my @sorted = sort { $a <=> $b } @_;
    return ($sorted[$#sorted / 2] + $sorted[@sorted / 2]) / 2;
}

sub title {
    my ($text, @column) = @_;
    printf {$table} "\n%-50s" . '%14s' x @column . "\n", $text, @column;
    return;
}

sub line {
    my ($text, @cell) = @_;
    printf {$table} "  %-48s" . '%14s' x @cell . "\n", $text, @cell;
    return;
}

1;
