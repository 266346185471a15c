package Probe;

# Drives mod_pgpool through the probe, a handler for tests (mod_pgpool_probe.c lists its commands).
#
#   my $httpd = probed("PgPoolConninfo ...");
#   my $answer = probe($httpd, qw(acquire again), 'sql=SELECT 1');
#   is told($answer, 'pid'), $pid;
#   tells $answer, { status => 0, value => 1 }, 'one row';
#
# A test can stop a request at a `gate` between two commands, for as long as it wants:
#
#   my $held = hold($httpd, qw(acquire gate again));     # it has acquired, and waits at the gate
#   ... other requests ...
#   tells let_go($held), { again => 0 }, 'it goes on';

use strict;
use warnings;

use Exporter 'import';
use Httpd;
use Pending;
use Poll;
use Test::More ();

our @EXPORT = qw(probed probe_at probe told told_all tells start_probe hold reach let_go mpms);

# ---- httpd

my $handler = "<Location /probe>\n  SetHandler pgpool-probe\n</Location>\n";

# Start an httpd with the probe at /probe; options as in Httpd->new.
sub probed {
    my ($conf, %option) = @_;
    my @module = ('pgpool', 'pgpool_probe', @{ delete $option{modules} // [] });
    return Httpd->new(modules => \@module, conf => $conf . "\n" . $handler, %option)->start;
}

# The MPMs to run a test on.
sub mpms { return Httpd::mpms() }

# ---- commands and answers

# The path for these commands; it encodes an argument such as "sql=SELECT 1".
sub probe_at {
    my (@command) = @_;
    return '/probe?' . join '&', map { encoded($_) } @command;
}

sub encoded {
    my ($command) = @_;
    my ($name, $argument) = split /=/, $command, 2;
    return $name if !defined $argument;
    return "$name=" . $argument =~ s/([^A-Za-z0-9_.-])/sprintf '%%%02X', ord $1/ger;
}

sub probe {
    my ($httpd, @command) = @_;
    return $httpd->get(probe_at(@command));
}

# All values of a key in an answer, in order.
sub told_all {
    my ($answer, $key) = @_;
    return [$answer->{content} =~ /^\Q$key\E=(.*)$/mg];
}

# The first value of a key, or undef.
sub told {
    my ($answer, $key) = @_;
    return scalar told_all($answer, $key)->[0];
}

# Test the values of some keys; of each key the only value, or the list of all its values.
sub tells {
    my ($answer, $expected, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my %got;
    for my $key (keys %$expected) {
        my $all = told_all($answer, $key);
        $got{$key} = ref $expected->{$key} || @$all > 1 ? $all : $all->[0];
    }
    return Test::More::is_deeply(\%got, $expected, $name)
        || Test::More::diag("$answer->{status}: $answer->{content}");
}

# ---- requests that wait at a gate

my $gates = 0;

# Send a request that waits at its command `gate` until let_go.  Without such a command it waits at
# the end.  The last argument may be a hash with options for begin.
sub start_probe {
    my ($httpd, @command) = @_;
    my %option = ref $command[-1] ? %{ pop @command } : ();
    push @command, 'gate' if !grep { $_ eq 'gate' } @command;
    my $gate = $httpd->dir . '/gate' . ++$gates;
    my @stop = ("touch=$gate.reached", "hold=$gate.open");
    my $path = probe_at(map { $_ eq 'gate' ? @stop : $_ } @command);
    return { gate => $gate, pending => $httpd->begin($path, %option) };
}

# Return when the request waits at its gate.
sub reach {
    my ($started) = @_;
    return $started if poll_until { -e "$started->{gate}.reached" };
    die "a request has not reached its gate\n";
}

sub hold { return reach(start_probe(@_)) }

# Open the gates of these requests, and return their answers.
sub let_go {
    my @held = @_;
    open_gate($_) for @held;
    return Pending::finish(map { $_->{pending} } @held);
}

sub open_gate {
    my ($held) = @_;
    Httpd::spew("$held->{gate}.open", '');
    return;
}

1;
