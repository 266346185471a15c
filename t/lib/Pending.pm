package Pending;

# A request that was sent, and whose answer was not read yet.  So a test can have many requests
# under way without threads:
#
#   my @pending = map { Pending->new($port, '/slow') } 1 .. 8;
#   my @done = Pending::finish(@pending);
#
# An answer is like HTTP::Tiny's, and has `began` and `ended` (Poll::now).

use strict;
use warnings;

use IO::Select;
use IO::Socket::INET;
use Poll;
use Socket qw(SOL_SOCKET SO_RCVBUF inet_aton pack_sockaddr_in);

# method, headers, content   of the request
# rcvbuf                     bytes of the receive buffer; if small, the server waits for the client
sub new {
    my ($class, $port, $path, %option) = @_;
    my $socket = IO::Socket::INET->new(Proto => 'tcp') or die "socket: $!";
    if ($option{rcvbuf}) {
        setsockopt $socket, SOL_SOCKET, SO_RCVBUF, $option{rcvbuf} or die "rcvbuf: $!";
    }
    my $self = bless { socket => $socket, text => '', began => now() }, $class;
    connect $socket, pack_sockaddr_in($port, inet_aton('127.0.0.1')) or die "connect: $!";
    $socket->autoflush;
    print {$socket} request_text($path, %option) or die "send: $!";
    return $self;
}

# HTTP/1.0: the answer ends with the connection and is never chunked.
sub request_text {
    my ($path, %option) = @_;
    my $content = $option{content} // '';
    my %header = (Host => '127.0.0.1', %{ $option{headers} // {} });
    $header{'Content-Length'} = length $content if defined $option{content};
    my $method = $option{method} // (defined $option{content} ? 'POST' : 'GET');
    my $headers = join '', map { "$_: $header{$_}\r\n" } sort keys %header;
    return "$method $path HTTP/1.0\r\n$headers\r\n$content";
}

# Close the connection without reading the answer.
sub abandon {
    my ($self) = @_;
    close delete $self->{socket};
    return;
}

# Wait for all answers, 60 seconds at most, and return them in the order of the arguments.  An
# answer that has not come by then has status 599, as in HTTP::Tiny.
sub finish {
    my @pending = @_;
    my $end = now() + 60;
    my %by_socket = map { $_->{socket} => $_ } @pending;
    my $open = IO::Select->new(map { $_->{socket} } @pending);
    while ($open->count && now() < $end) {
        for my $socket ($open->can_read($end - now())) {
            $open->remove($socket) if !$by_socket{$socket}->read_some;
        }
    }
    return wantarray ? map({ $_->answer } @pending) : $pending[0]->answer;
}

sub read_some {
    my ($self) = @_;
    my $got = sysread $self->{socket}, $self->{text}, 65536, length $self->{text};
    return $got if $got;
    $self->{ended} = now();
    return 0;
}

sub answer {
    my ($self) = @_;
    my %answer = (
        status  => 599,
        reason  => '',
        headers => {},
        content => '',
        began   => $self->{began},
        ended   => $self->{ended} // now(),
    );
    my ($head, $content) = split /\r\n\r\n/, $self->{text}, 2;
    if ($self->{ended} && defined $content) {
        my ($status, @header) = split /\r\n/, $head;
        (undef, @answer{qw(status reason)}) = split / /, $status, 3;
        $answer{headers} = { map { /\A([^:]+):\s*(.*)/ ? (lc $1 => $2) : () } @header };
        $answer{content} = $content;
    }
    $answer{seconds} = $answer{ended} - $answer{began};
    $answer{success} = $answer{status} =~ /\A2/;
    return \%answer;
}

1;
