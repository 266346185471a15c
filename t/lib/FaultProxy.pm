package FaultProxy;

# A TCP proxy that makes the faults of a network, at the test's command.
#
#   my $proxy = FaultProxy->new($pg);        # a server (PostgreSQL::Test::Cluster), or a port
#   ... conninfo($pg, via($proxy)) ...
#   $proxy->mode('hole');
#   $proxy->drop;
#   is $proxy->accepted, 3;
#
# Modes:
#
#   pass      all data is passed on
#   slow=S    each chunk is passed on S seconds after it has come
#   refuse    the proxy does not listen; open connections go on
#   reject    the proxy accepts each attempt, counts it and resets it; open connections go on
#   mute      the proxy accepts attempts and says nothing; open connections go on
#   error=X   each attempt gets an error with that SQLSTATE; open connections go on
#   hole      the proxy drops all data of all connections: neither data nor end nor reset gets through
#
# When mute or hole ends, the proxy resets the connections that got no answer or whose data was
# dropped.  A command is in force when it returns.

use strict;
use warnings;

use Httpd;
use IO::Select;
use IO::Socket::INET;
use IO::Socket::UNIX;
use Poll;
use POSIX ();
use Socket qw(AF_UNIX PF_UNSPEC SOCK_STREAM SOL_SOCKET SO_LINGER);

sub new {
    my ($class, $target) = @_;
    my $port = Httpd::free_port();
    my $listener = listener($port);
    socketpair my $control, my $far, AF_UNIX, SOCK_STREAM, PF_UNSPEC or die "socketpair: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        close $control;
        my $proxy = bless { port => $port, target => target($target), control => $far,
            listener => $listener, mode => 'pass', delay => 0, accepted => 0, bytes => 0, ends => {} }, $class;
        eval { $proxy->serve; 1 } or print STDERR "FaultProxy: $@";
        # Without the END blocks, which are the test's.
        POSIX::_exit(0);
    }
    $control->autoflush;
    return bless { port => $port, control => $control, pid => $pid }, $class;
}

sub listener {
    my ($port) = @_;
    return IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 128, ReuseAddr => 1)
        // die "port $port: $!";
}

# A PostgreSQL::Test::Cluster listens on a Unix socket.
sub target {
    my ($target) = @_;
    return ref $target ? $target->host . '/.s.PGSQL.' . $target->port : "127.0.0.1:$target";
}

# ---- the test's side

sub port     { my ($self) = @_; return $self->{port} }
sub mode     { my ($self, $mode) = @_; return $self->command("mode $mode") }
sub accepted { my ($self) = @_; return $self->command('accepted') }    # connections so far
sub open     { my ($self) = @_; return $self->command('open') }        # connections that are open
sub bytes    { my ($self) = @_; return $self->command('bytes') }       # bytes from clients so far
sub drop     { my ($self) = @_; return $self->command('drop') }        # reset all connections
sub half     { my ($self) = @_; return $self->command('half') }        # send clients a FIN only

sub command {
    my ($self, $text) = @_;
    print { $self->{control} } "$text\n";
    my $answer = readline $self->{control};
    die "the proxy is gone\n" if !defined $answer;
    chomp $answer;
    return $answer;
}

sub DESTROY {
    my ($self) = @_;
    return if !$self->{pid};
    local $?;
    kill KILL => $self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

# ---- the proxy's side.  An end is one of the two sockets of a connection.

sub serve {
    my ($self) = @_;
    local $SIG{PIPE} = 'IGNORE';
    while (1) {
        my ($readable, $writable) = $self->wait_for_any;
        for my $socket (@$readable) {
            if    ($socket == $self->{control}) { $self->obey or return }
            elsif ($socket == ($self->{listener} // 0)) { $self->accept_one }
            else  { my $end = $self->{ends}{$socket}; $self->read_from($end) if $end }
        }
        for my $socket (@$writable) {
            my $end = $self->{ends}{$socket};
            $self->write_to($end) if $end;
        }
    }
}

# While an end still has data to write, its peer is not read.  Delayed data is not written before
# its time.
sub wait_for_any {
    my ($self) = @_;
    my @ends = values %{ $self->{ends} };
    my @full = grep { length $_->{out} } @ends;
    my @due  = grep { $_->{due} <= now() } @full;
    my @read = grep { !$_->{closed} && !length $_->{peer}{out} } @ends;
    my ($next) = sort { $a <=> $b } map { $_->{due} - now() } grep { $_->{due} > now() } @full;
    my @sets = IO::Select::select(
        IO::Select->new($self->{control}, $self->{listener} // (), map { $_->{socket} } @read),
        IO::Select->new(map { $_->{socket} } @due), undef, $next);
    return map { $_ // [] } @sets[0, 1];
}

sub obey {
    my ($self) = @_;
    sysread $self->{control}, my $line, 1000 or return 0;
    my ($word, $argument) = split ' ', $line;
    $self->enter($argument) if $word eq 'mode';
    my @ends = values %{ $self->{ends} };
    my @clients = grep { $_->{client} } @ends;
    if ($word eq 'drop') { $self->reset_end($_) for @ends }
    if ($word eq 'half') { shutdown $_->{socket}, 1 for @clients }
    my %told = (accepted => $self->{accepted}, bytes => $self->{bytes}, open => scalar @clients);
    syswrite $self->{control}, ($told{$word} // 1) . "\n";
    return 1;
}

sub enter {
    my ($self, $argument) = @_;
    my ($mode, $detail) = split /=/, $argument;
    die "no mode $mode\n" if $mode !~ /\A(?:pass|slow|refuse|reject|mute|error|hole)\z/;
    if ($mode !~ /mute|hole/) {
        my @lost = grep { $_->{lost} } values %{ $self->{ends} };
        $self->reset_end($_) for @lost;
    }
    $self->{mode}     = $mode;
    $self->{delay}    = $mode eq 'slow' ? $detail : 0;
    $self->{sqlstate} = $detail;
    $self->{listener} = $mode eq 'refuse' ? undef : $self->{listener} // listener($self->{port});
    return;
}

sub accept_one {
    my ($self) = @_;
    my $client = $self->{listener}->accept or return;
    $self->{accepted}++;
    return reset_socket($client) if $self->{mode} eq 'reject';
    my %alone = (client => 1, peer => { out => '' });
    return $self->add_end($client, %alone, error => $self->{sqlstate}) if $self->{mode} eq 'error';
    return $self->add_end($client, %alone, lost => 1) if $self->{mode} =~ /mute|hole/;
    my $server = $self->reach or return reset_socket($client);
    my $one = $self->add_end($client, client => 1);
    my $two = $self->add_end($server, peer => $one);
    $one->{peer} = $two;
    return;
}

sub reach {
    my ($self) = @_;
    my $target = $self->{target};
    return IO::Socket::UNIX->new(Peer => $target) if $target =~ m{\A/};
    return IO::Socket::INET->new(PeerAddr => $target);
}

sub add_end {
    my ($self, $socket, %more) = @_;
    $socket->blocking(0);
    return $self->{ends}{$socket} = { socket => $socket, out => '', due => 0, %more };
}

sub read_from {
    my ($self, $end) = @_;
    my $got = sysread $end->{socket}, my $chunk, 65536;
    return if !defined $got && $!{EAGAIN};
    $self->{bytes} += $got // 0 if $end->{client};
    return $self->refuse_in_words($end, $got) if $end->{error};
    if ($self->{mode} eq 'hole' || $end->{lost}) {
        $end->{closed} = 1 if !$got;
        $end->{lost} = 1;
    }
    elsif (!defined $got) { $self->reset_end($end) }
    elsif (!$got) { $self->finish($end) }
    else {
        @{ $end->{peer} }{qw(out due)} = ($chunk, now() + $self->{delay});
        $self->write_to($end->{peer}) if !$self->{delay};
    }
    return;
}

# Like a server: to libpq's request for encryption (8 bytes) the proxy says no; to the startup
# message it sends the error, and ends the connection.
sub refuse_in_words {
    my ($self, $end, $got) = @_;
    my $fields = "SFATAL\0VFATAL\0C$end->{error}\0Mthe proxy says so\0\0";
    syswrite $end->{socket}, ($got // 0) == 8 ? 'N' : 'E' . pack('N', 4 + length $fields) . $fields;
    delete $self->{ends}{ $end->{socket} } if ($got // 0) != 8;
    return;
}

sub write_to {
    my ($self, $end) = @_;
    my $put = syswrite $end->{socket}, $end->{out};
    return $put || $!{EAGAIN} ? substr $end->{out}, 0, $put // 0, '' : $self->reset_end($end);
}

# One side has closed, which ends the connection: PostgreSQL and libpq do not half close.
sub finish {
    my ($self, $end) = @_;
    delete $self->{ends}{ $_->{socket} } for $end, $end->{peer};
    delete $end->{peer}{peer};
    return;
}

sub reset_end {
    my ($self, $end) = @_;
    my $peer = $end->{peer};
    for my $one (grep { $_ && $_->{socket} } $end, $peer) {
        delete $self->{ends}{ $one->{socket} };
        reset_socket(delete $one->{socket});
    }
    delete $peer->{peer} if $peer;
    return;
}

# Close without lingering, so that the other side gets a RST.
sub reset_socket {
    my ($socket) = @_;
    setsockopt $socket, SOL_SOCKET, SO_LINGER, pack 'ii', 1, 0;
    close $socket;
    return;
}

1;
