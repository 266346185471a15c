package Bouncer;

# A PgBouncer for one test, between httpd and a server.
#
#   my $bouncer = Bouncer->new($pg, 'transaction', default_pool_size => 4);
#   PgPoolConninfo "@{[$bouncer->conninfo]}"
#   $bouncer->kill; $bouncer->start;
#   $bouncer->stop;

use strict;
use warnings;

use Httpd;
use IO::Socket::INET;
use Poll;
use POSIX ();

# Start a PgBouncer.  The settings go into the section [pgbouncer]; `database` is appended to the
# line of the database instead.
sub new {
    my ($class, $pg, $mode, %setting) = @_;
    my $dir = File::Temp->newdir('bouncer-XXXXXX', DIR => $ENV{TESTDIR});
    my $self = bless { dir => $dir, port => Httpd::free_port() }, $class;
    my $user = getpwuid $>;
    my $database = delete $setting{database} // '';
    %setting = (pool_mode => $mode, default_pool_size => 4, %setting);
    Httpd::spew("$dir/users", "\"$user\" \"\"\n");
    Httpd::spew("$dir/conf", <<"CONF");
[databases]
postgres = host=@{[$pg->host]} port=@{[$pg->port]} dbname=postgres $database
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = $self->{port}
unix_socket_dir = $dir
auth_type = trust
auth_file = $dir/users
logfile = $dir/log
@{[join "\n", map { "$_ = $setting{$_}" } sort keys %setting]}
CONF
    return $self->start;
}

sub start {
    my ($self) = @_;
    $self->{pid} = fork // die "fork: $!";
    if (!$self->{pid}) {
        exec qw(setpriv --pdeathsig TERM pgbouncer -q), "$self->{dir}/conf" or POSIX::_exit(127);
    }
    my $up = poll_until { IO::Socket::INET->new("127.0.0.1:$self->{port}") };
    die "no bouncer: ", Httpd::slurp("$self->{dir}/log"), "\n" if !$up;
    return $self;
}

sub stop { my ($self) = @_; return $self->kill('TERM') }

sub kill {
    my ($self, $signal) = @_;
    CORE::kill $signal // 'KILL', $self->{pid};
    waitpid $self->{pid}, 0;
    return;
}

sub port { my ($self) = @_; return $self->{port} }

# Connection strings: over TCP, and over its Unix socket.
sub conninfo       { my ($self) = @_; return "host=127.0.0.1 port=$self->{port} dbname=postgres" }
sub conninfo_local { my ($self) = @_; return "host=$self->{dir} port=$self->{port} dbname=postgres" }

1;
