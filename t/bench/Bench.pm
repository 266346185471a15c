package Bench;

# Common to the parts of the bench: a server, an httpd with both modules, and a table.
#
#   my $httpd = bench_httpd(conninfo(server), 8, location('dbd', 'bench-dbd'));
#   title('a measurement', 'mod_dbd', 'mod_pgpool');
#   line('requests/s', 10_000, 11_000);

use strict;
use warnings;

use IO::Handle;

# PostgreSQL::Test::Utils sends STDOUT to a log when it is loaded, so keep a copy before that.
my $table;
BEGIN { open $table, '>&', \*STDOUT or die "stdout: $!"; $table->autoflush }

use PgPoolTest;

use Exporter 'import';
our @EXPORT = qw(server bench_httpd bridged_httpd location median title line);

my $server;

# By default a PostgreSQL::Test::Cluster logs each statement.
sub server { return $server //= postgres("max_connections = 200\nlog_statement = none\n") }

# mod_dbd has its connections as mod_pgpool does: it makes all of them at the start, and keeps them.
# There are enough threads for requests that an earlier load has left.
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

# An httpd whose consumers of mod_dbd use this module: dbd or pgpool_dbd.
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
