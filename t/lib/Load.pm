package Load;

# Clients in the background that send requests for one path, at least one each, until they are
# stopped.  Each request has a connection of its own unless keep_alive is set.
#
#   my $load = Load->new($httpd->url('/x'), clients => 8);
#   ... something that must not disturb the clients ...
#   is_deeply $load->stop, { 200 => $anything };     # how often each status was seen
#
# A client gives up a request after `timeout` seconds, by default 30.  With `pause` it waits this
# many seconds after each request.  With `record` it keeps each request:
#
#   my @answer = $load->finish;                      # { status, began, seconds }, by their beginning

use strict;
use warnings;

use HTTP::Tiny;
use Poll;
use POSIX ();
use Time::HiRes qw(sleep);

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
            my $seen = eval { ask_until(\$told, $url, %option) } // ["died 1 0"];
            $write->autoflush;
            print {$write} map { "$_\n" } @$seen;
            # Without the END blocks, which are the test's.
            POSIX::_exit(0);
        }
        push @{ $self->{clients} }, { pid => $pid, result => $result };
    }
    return $self;
}

# The client's lines: one for each request (record), or one for each status with its count.
sub ask_until {
    my ($told, $url, %option) = @_;
    my $client = HTTP::Tiny->new(keep_alive => $option{keep_alive} // 0, timeout => $option{timeout} // 30);
    my (%seen, @line);
    do {
        my $began = now();
        my $status = $client->get($url)->{status};
        if ($option{record}) { push @line, join ' ', $status, $began, now() - $began }
        else                 { $seen{$status}++ }
        sleep $option{pause} if $option{pause} && !$$told;
    } while !$$told;
    return $option{record} ? \@line : [map { "$_ $seen{$_}" } keys %seen];
}

# Stop the clients.  Returns the statuses that all of them have seen, with counts.
sub stop {
    my ($self) = @_;
    my %sum;
    $sum{ $_->[0] } += $_->[1] for $self->lines;
    return \%sum;
}

# Stop clients that record.  Returns all requests.
sub finish {
    my ($self) = @_;
    my @answer = map { { status => $_->[0], began => $_->[1], seconds => $_->[2] } } $self->lines;
    return sort { $a->{began} <=> $b->{began} } @answer;
}

sub lines {
    my ($self) = @_;
    my @client = splice @{ $self->{clients} };
    kill TERM => map { $_->{pid} } @client;
    my @line;
    for my $client (@client) {
        push @line, map { [split] } readline $client->{result};
        waitpid $client->{pid}, 0;
    }
    return @line;
}

sub DESTROY {
    my ($self) = @_;
    local $?;
    $self->stop;
    return;
}

1;
