package PgPoolTest;

# The helpers of a test with httpd and PostgreSQL.  `use PgPoolTest;` also gives strict, warnings
# and Test::More.
#
#   my $pg = postgres;
#   my $httpd = httpd(<<"CONF");
#   PgPoolConninfo "@{[conninfo($pg)]}"
#   CONF
#   poll_until { backends($pg) == 2 };

use strict;
use warnings;

use Exporter ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils ();
use Test::More;
# Loaded after the cluster, so that httpd ends before its server does.
use Httpd;
use Pending;
use Poll;

our @EXPORT = qw(postgres conninfo via query backends kill_backends freeze thaw httpd now poll_until
    finish);

sub import {
    strict->import;
    warnings->import;
    Test::More->export_to_level(1);
    goto &Exporter::import;
}

# PostgreSQL::Test::Utils sends STDERR to a file; diag() shows a fatal error to the user, too.
$SIG{__DIE__} = sub { diag(@_) if defined $^S && !$^S };

# Arguments of initdb: by default it takes encoding and locale from the environment.
our @UTF8 = qw(--encoding=UTF8 --locale=C.UTF-8);

# Start a server, with this text in its postgresql.conf.
sub postgres {
    my ($conf) = @_;
    my $node = PostgreSQL::Test::Cluster->new('pg' . ++$PgPoolTest::nodes);
    $node->init(extra => \@UTF8);
    $node->append_conf('postgresql.conf', $conf) if $conf;
    $node->start;
    return $node;
}

# The connection string of a server, with further settings name => value.
sub conninfo {
    my ($node, %setting) = @_;
    return join ' ', $node->connstr('postgres'), map { "$_=$setting{$_}" } sort keys %setting;
}

# Settings for conninfo(): connect through a FaultProxy.
sub via {
    my ($proxy) = @_;
    return (host => '127.0.0.1', port => $proxy->port);
}

# A query's rows as psql -A -t prints them.
sub query {
    my ($node, $sql) = @_;
    return $node->safe_psql('postgres', $sql);
}

# How many clients the server has, without this query's own; with a name, only that application's.
sub backends {
    my ($node, $application) = @_;
    return query($node, 'SELECT count(*) ' . clients($application));
}

# Terminate all backends, or those of an application.  Returns how many.
sub kill_backends {
    my ($node, $application) = @_;
    my @pid = map { /(\d+)/ } split /\n/,
        query($node, 'SELECT pid, pg_terminate_backend(pid) ' . clients($application));
    # A backend leaves pg_stat_activity before its socket closes, so wait for the process's end.
    poll_until { !grep { kill 0, $_ } @pid } 10;
    return scalar @pid;
}

sub clients {
    my ($application) = @_;
    my $name = defined $application ? "AND application_name = '$application'" : '';
    return "FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() $name";
}

# Stop all processes of a server (SIGSTOP): the kernel still takes in data, but no answer comes.
my %frozen;

sub freeze {
    my ($node) = @_;
    my ($main) = split /\n/, Httpd::slurp($node->data_dir . '/postmaster.pid');
    # The postmaster first: it could start more processes.
    kill STOP => $main or die "freeze: $!";
    my @pid = ($main, Httpd::children_of($main));
    kill STOP => @pid;
    $frozen{ $node->name } = \@pid;
    return;
}

sub thaw {
    my ($node) = @_;
    kill CONT => @{ delete $frozen{ $node->name } };
    return;
}

# A frozen server could not be stopped at the test's end.
END { kill CONT => map { @$_ } values %frozen }

# Start an httpd with these directives; options as in Httpd->new.
sub httpd {
    my ($conf, %option) = @_;
    return Httpd->new(conf => $conf, %option)->start;
}

# Wait for the answers to requests that Httpd's begin has sent.
sub finish { return Pending::finish(@_) }

1;
