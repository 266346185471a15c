package PgPoolTest;

# What every test over httpd and PostgreSQL starts with: `use PgPoolTest;` gives strict, warnings,
# Test::More and the short words below.
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
# After the cluster, so that httpd ends before its server does.
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

# PostgreSQL's rig writes what goes to STDERR into a file; say it where a person reads.
$SIG{__DIE__} = sub { diag(@_) if defined $^S && !$^S };

# Arguments of initdb: without them encoding and locale would be those of the environment.
our @UTF8 = qw(--encoding=UTF8 --locale=C.UTF-8);

# A started server; text is for its postgresql.conf.
sub postgres {
    my ($conf) = @_;
    my $node = PostgreSQL::Test::Cluster->new('pg' . ++$PgPoolTest::nodes);
    $node->init(extra => \@UTF8);
    $node->append_conf('postgresql.conf', $conf) if $conf;
    $node->start;
    return $node;
}

# For PgPoolConninfo; further settings come as name => value.
sub conninfo {
    my ($node, %setting) = @_;
    return join ' ', $node->connstr('postgres'), map { "$_=$setting{$_}" } sort keys %setting;
}

# For conninfo: over a FaultProxy.
sub via {
    my ($proxy) = @_;
    return (host => '127.0.0.1', port => $proxy->port);
}

# One query's rows as psql -A -t prints them.
sub query {
    my ($node, $sql) = @_;
    return $node->safe_psql('postgres', $sql);
}

# How many clients the server has, the asker not counted; with a name, those of that application.
sub backends {
    my ($node, $application) = @_;
    return query($node, 'SELECT count(*) ' . clients($application));
}

# Terminates them all, or those of an application; returns how many.
sub kill_backends {
    my ($node, $application) = @_;
    my @pid = map { /(\d+)/ } split /\n/,
        query($node, 'SELECT pid, pg_terminate_backend(pid) ' . clients($application));
    # The server forgets them before their sockets close, and only then can anybody see it.
    poll_until { !grep { kill 0, $_ } @pid } 10;
    return scalar @pid;
}

sub clients {
    my ($application) = @_;
    my $name = defined $application ? "AND application_name = '$application'" : '';
    return "FROM pg_stat_activity
             WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() $name";
}

# Stop a server in its tracks: its kernel still takes in what is sent, and nobody answers.
my %frozen;

sub freeze {
    my ($node) = @_;
    my ($main) = split /\n/, Httpd::slurp($node->data_dir . '/postmaster.pid');
    # The main process first: it would start more.
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

# Who is frozen cannot be stopped at the test's end.
END { kill CONT => map { @$_ } values %frozen }

# A started httpd with these directives; options as in Httpd->new.
sub httpd {
    my ($conf, %option) = @_;
    return Httpd->new(conf => $conf, %option)->start;
}

# The answers to what was sent with Httpd's begin.
sub finish { return Pending::finish(@_) }

1;
