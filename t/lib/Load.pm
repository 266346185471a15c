package Load;

# Clients that keep asking for one path in the background, each request on a connection of its own
# unless keep_alive is set, at least once and until they are told to stop.
#
#   my $load = Load->new($httpd->url('/x'), clients => 8);
#   ... things that must disturb nobody ...
#   is_deeply $load->stop, { 200 => $anything };     # how often each status was seen

use strict;
use warnings;

use HTTP::Tiny;
use POSIX ();

sub new {
    my ($class, $url, %option) = @_;
    my $self = bless { clients => [] }, $class;
    my $told = 0;
    # Set before the fork: a client must never run the test's own handler.
    local $SIG{TERM} = sub { $told = 1 };
    for (1 .. $option{clients} // 4) {
        pipe my $result, my $write or die "pipe: $!";
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            my $seen = eval { ask_until(\$told, $url, %option) } // { died => 1 };
            syswrite $write, join ' ', %$seen;
            # The test's END blocks are not ours to run.
            POSIX::_exit(0);
        }
        push @{ $self->{clients} }, { pid => $pid, result => $result };
    }
    return $self;
}

sub ask_until {
    my ($told, $url, %option) = @_;
    my $client = HTTP::Tiny->new(keep_alive => $option{keep_alive} // 0, timeout => 30);
    my %seen;
    do { $seen{ $client->get($url)->{status} }++ } while !$$told;
    return \%seen;
}

# The statuses seen by all clients together, with their counts.
sub stop {
    my ($self) = @_;
    my @client = splice @{ $self->{clients} };
    kill TERM => map { $_->{pid} } @client;
    my %sum;
    for my $client (@client) {
        my %seen = split ' ', readline($client->{result}) // '';
        $sum{$_} += $seen{$_} for keys %seen;
        waitpid $client->{pid}, 0;
    }
    return \%sum;
}

sub DESTROY {
    my ($self) = @_;
    local $?;
    $self->stop;
    return;
}

1;
