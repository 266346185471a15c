#!/usr/bin/perl

# The pool cancels a statement that a borrower has left running.  The cancel request has a
# connection of its own, and must never reach the statement of the next borrower.  This test runs
# 20,000 rounds on the core (see race/cancel_race.c), and the same without the core's guard, to show
# that the test sees a hit.

use PgPoolTest;
use File::Path qw(make_path);

my $build = ($ENV{PGPOOL_BUILD} || '.build') . '/t/race';
make_path($build);

# The server forks for each cancel request, which is faster with little shared memory.
my $pg = postgres("shared_buffers = 1MB\nlog_statement = none\nlog_min_messages = fatal");

sub words { return split ' ', qx{@_} }

# Build the driver with the core; further sources replace those of the core.
sub build_driver {
    my ($name, @source) = @_;
    my $apr = Httpd::apxs('APR_CONFIG');
    my $pg_config = $ENV{PG_CONFIG} || 'pg_config';
    my @flags = (qw(-std=gnu11 -pthread -O2 -g -Imod_pgpool/core), words("$apr --cppflags --includes"),
        map({ "-I$_" } words("$pg_config --includedir")),
        map({ ("-fsanitize=$_", '-fno-omit-frame-pointer') } grep { $_ } $ENV{PGPOOL_SANITIZE}));
    my @libraries = ("$build/../../libpgpcore.a", '-Wl,--wrap=PQcancel', words("$apr --link-ld"),
        map({ "-L$_" } words("$pg_config --libdir")), '-lpq');
    system($ENV{CC} || 'cc', @flags, '-o', "$build/$name", 't/race/cancel_race.c', @source, @libraries) == 0
        or die "$name cannot be built\n";
    return "$build/$name";
}

# The core's source without the guard: a connection counts as clean when no statement runs any more,
# even if its cancel request is still on its way.
sub unguarded_source {
    my $source = Httpd::slurp('mod_pgpool/core/pgp_pq_cleanup.c');
    $source =~ s/return connection->task != NULL;/if (connection->task) pgp_task_leave(&connection->task); return false;/
        && $source =~ s{step == PGP_STEP_FAILED \|\| !connection->task}{true}
        or die "the guard is not where it was\n";
    Httpd::spew("$build/pgp_pq_cleanup.c", $source);
    return "$build/pgp_pq_cleanup.c";
}

sub race {
    my ($driver, @argument) = @_;
    open my $output, '-|', $driver, conninfo($pg), @argument or die "$driver: $!";
    my %got = map { /(\w+)=(\d+)/ } <$output>;
    ok close($output), 'the driver ends well';
    note join ' ', map { "$_=$got{$_}" } sort keys %got;
    return \%got;
}

my @crowd = (16, 8);

subtest 'with the guard' => sub {
    my $got = race(build_driver('cancel_race'), 20_000, @crowd);
    is $got->{rounds}, 20_000, 'all rounds were run';
    cmp_ok $got->{cancels}, '>', 500, 'many statements were cancelled'; # thousands, fewer on a slow machine
    is $got->{hit}, 0, 'no cancel hit a statement of another borrower';
    is $got->{failed}, 0, '... or failed otherwise';
    is $got->{closed}, 0, 'every connection was used again';
};

subtest 'without the guard' => sub {
    my $got = race(build_driver('cancel_race_unguarded', unguarded_source()), 20_000, @crowd, 1);
    cmp_ok $got->{hit}, '>', 0, "a statement was hit after $got->{rounds} rounds";
};

done_testing;
