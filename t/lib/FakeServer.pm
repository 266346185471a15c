package FakeServer;

# A fake server that speaks PostgreSQL's protocol as far as a test wants, and knows no SQL.
#
#   my $server = FakeServer->new(sub {
#       my ($session) = @_;
#       log_in($session);                               # takes the startup message, answers "ready"
#       while (my ($type, $body) = message($session)) { # of the client; the empty list at its end
#           complete($session, 'SELECT 0') if $type eq 'Q';
#       }
#   });
#   ... conninfo_of($server) ...
#
# Each connection has a process of its own, which ends when the code returns.

use strict;
use warnings;

use Exporter 'import';
use Httpd;
use IO::Socket::INET;
use POSIX ();

our @EXPORT_OK = qw(conninfo_of log_in message say_message complete);

sub new {
    my ($class, $code) = @_;
    my $port = Httpd::free_port();
    my $listener = IO::Socket::INET->new(LocalAddr => "127.0.0.1:$port", Listen => 128, ReuseAddr => 1)
        // die "port $port: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        setpgrp 0, 0;
        eval { serve($listener, $code); 1 } or print STDERR "FakeServer: $@";
        # Without the END blocks, which are the test's.
        POSIX::_exit(0);
    }
    setpgrp $pid, $pid;
    return bless { port => $port, pid => $pid }, $class;
}

sub serve {
    my ($listener, $code) = @_;
    local $SIG{CHLD} = 'IGNORE';
    local $SIG{PIPE} = 'IGNORE';
    while (my $session = $listener->accept) {
        my $pid = fork // die "fork: $!";
        if (!$pid) {
            close $listener;
            eval { $code->($session) };
            POSIX::_exit(0);
        }
        close $session;
    }
    return;
}

sub DESTROY {
    my ($self) = @_;
    local $?;
    kill KILL => -$self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

sub conninfo_of {
    my ($server) = @_;
    return "host=127.0.0.1 port=$server->{port} dbname=fake user=fake sslmode=disable gssencmode=disable";
}

# ---- the protocol

sub log_in {
    my ($session, %option) = @_;
    my $startup = exactly($session, unpack('N', exactly($session, 4)) - 4);
    say_message($session, R => pack 'N', 0);
    say_message($session, S => "client_encoding\0UTF8\0");
    say_message($session, K => pack 'NN', $option{pid} // $$, 1);
    return ready($session);
}

sub ready {
    my ($session) = @_;
    return say_message($session, Z => 'I');
}

sub complete {
    my ($session, $tag) = @_;
    say_message($session, C => "$tag\0");
    return ready($session);
}

sub say_message {
    my ($session, $type, $body) = @_;
    return syswrite $session, $type . pack('N', 4 + length $body) . $body;
}

sub message {
    my ($session) = @_;
    my $type = eval { exactly($session, 1) } // return;
    return ($type, exactly($session, unpack('N', exactly($session, 4)) - 4));
}

sub exactly {
    my ($session, $length) = @_;
    my $text = '';
    while (length $text < $length) {
        sysread $session, $text, $length - length $text, length $text or die "the client is gone\n";
    }
    return $text;
}

1;
