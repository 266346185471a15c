#!/usr/bin/perl

# The life of the children: started, replaced, stopped while requests are under way, killed, and
# forking.  No request fails without need, mod_pgpool keeps no child from ending, and no backend
# stays.

use PgPoolTest;
use Probe;
use IO::Select;

my $pg = postgres;
query($pg, 'CREATE TABLE done (what text)');

my $conninfo = conninfo($pg, application_name => 'life');
my $conf = <<"CONF";
PgPoolConninfo "$conninfo"
PgPoolMin 1
PgPoolMax 4
PgPoolAcquireTimeout 60s
CONF

# The path of a request that is answered with 200 only if it gets a connection.
my $served = probe_at('acquire', 'httpstatus', 'sql=SELECT 1');

sub backend_pids {
    return split ' ', query($pg,
        q(SELECT pid FROM pg_stat_activity WHERE application_name = 'life'));
}

# All backends that a child has ever had.
sub backends_of {
    my ($httpd, $child) = @_;
    return $httpd->error_log =~ /pid $child:tid \d+\] PGP1001: .* backend (\d+):/g;
}

sub gone {
    my @pid = @_;
    return poll_until { !grep { kill 0, $_ } @pid };
}

sub no_backend_left {
    ok poll_until { backends($pg, 'life') == 0 }, '... no backend is left';
    return;
}

# Start clients that send requests until only_200() stops them.
sub under_load {
    my ($httpd) = @_;
    my $before = length $httpd->access_log;
    my $load = $httpd->load($served, clients => 6);
    poll_until { length $httpd->access_log > $before + 2000 } or die "there is no load\n";
    return $load;
}

sub only_200 {
    my ($load, $name) = @_;
    my $statuses = $load->stop;
    is_deeply [keys %$statuses], [200], "$name: no request fails" or diag explain $statuses;
    return;
}

# ---- started and replaced: two children with four threads each, or eight

sub started {
    my ($httpd) = @_;
    my @child = $httpd->children;
    ok poll_until { backends($pg, 'life') == @child }, 'started: PgPoolMin for each child';
    my %connected;
    poll_until { # the server shows a connection before its child logs it
        %connected = map { $_ => 1 } $httpd->error_log =~ /pid (\d+):tid \d+\] PGP1001/g;
        keys %connected >= @child;
    };
    is_deeply [sort keys %connected], [sort @child], '... and none for their parent';
    return;
}

sub gracefully_restarted {
    my ($httpd) = @_;
    my $load = under_load($httpd);
    for my $time (qw(first second)) {
        my @child = $httpd->children;
        my @backend = backend_pids();
        $httpd->graceful;
        $httpd->wait_gone(@child);
        ok gone(@backend), "the $time graceful restart: no old backend is left";
    }
    only_200($load, '... under load');
    return;
}

sub restarted {
    my ($httpd) = @_;
    my @child = $httpd->children;
    my @backend = backend_pids();
    $httpd->restart;
    $httpd->wait_gone(@child);
    ok gone(@backend), 'a restart: no old backend is left';
    is $httpd->get($served)->{status}, 200, '... and it serves';
    return;
}

sub killed {
    my ($httpd) = @_;
    my ($child) = $httpd->children;
    poll_until { backends_of($httpd, $child) };
    my @backend = backends_of($httpd, $httpd->kill_child);
    ok @backend && gone(@backend), 'a child is killed: its backends end';
    is $httpd->get($served)->{status}, 200, '... and it serves';
    return;
}

# ---- ended while requests are under way

my $insert = q(sql=INSERT INTO done VALUES ('after all'));

# One child with two connections for eight threads.
sub busy {
    my ($mpm) = @_;
    return probed("${conf}PgPoolMax 2\nPgPoolMaxWaiters 3\n", mpm => $mpm, threads => 8);
}

# Three requests that wait for a connection: they all wait as soon as a fourth one is refused
# (PgPoolMaxWaiters 3).
sub waiting {
    my ($httpd) = @_;
    my %by_socket = map { $_->{socket} => $_ } map { $httpd->begin(probe_at('acquire')) } 1 .. 4;
    my $select = IO::Select->new(map { $_->{socket} } values %by_socket);
    my ($refused) = poll_until { ($select->can_read(0))[0] };
    my $answer = delete($by_socket{$refused})->finish;
    is told($answer, 'status'), 'EEXHAUSTED', 'three are waiting';
    return values %by_socket;
}

sub rows_done {
    my ($expected, $name) = @_;
    is query($pg, 'SELECT count(*) FROM done'), $expected, $name;
    query($pg, 'TRUNCATE done');
    return;
}

sub stopped_while_busy {
    my ($mpm) = @_;
    my $httpd = busy($mpm);
    my @held = map { hold($httpd, 'acquire', 'gate', $insert) } 1 .. 2;
    my @waiting = waiting($httpd);
    $httpd->signal('TERM');
    my $stopping = qr/PGP1011: .*: this child process is stopping/;
    ok poll_until { 3 == (() = $httpd->error_log =~ /$stopping/g) }, 'stopped: waiting requests get ESTOPPING';
    let_go(@held);
    $httpd->wait_end;
    rows_done(2, '... requests with a connection may use it to their end');
    no_backend_left();
    return;
}

# In prefork each child has its own pool and one request.  A child ends at once, wherever its
# request is.
sub stopped_while_busy_alone {
    my $httpd = probed("${conf}PgPoolMax 1\n", mpm => 'prefork', threads => 4);
    hold($httpd, 'acquire', 'gate', $insert);
    hold($httpd, 'acquire', 'send=SELECT pg_sleep(600)');
    my $mark = $httpd->dir . '/waits';
    $httpd->begin(probe_at('acquire', "touch=$mark", 'open'));
    ok poll_until { -e $mark }, 'one connection is idle in its request, one at work, and one request waits';
    $httpd->signal('TERM');
    $httpd->wait_end;
    rows_done(0, 'stopped: they end');
    # The server goes on with the statement of a child that has ended, since nobody cancels it.
    kill_backends($pg, 'life');
    return;
}

# A child of prefork ends in a signal handler, which may interrupt malloc(): then mod_pgpool must
# not allocate memory at the end.  Not with the address sanitizer: it looks for leaks at the exit,
# and waits for ever for the lock of its own allocator that the interrupted allocation holds.
sub stopped_while_allocating {
    my $httpd = probed($conf, mpm => 'prefork', threads => 4);
    my @mark = map { $httpd->dir . "/heap$_" } 1 .. 4;
    my @busy = map { $httpd->begin(probe_at('acquire', "touch=$_", 'heap=60')) } @mark;
    ok poll_until { !grep { !-e } @mark }, 'all children allocate memory';
    kill TERM => $httpd->pid or die "kill: $!";
    $httpd->wait_end;
    no_backend_left();
    return;
}

sub gracefully_stopped_while_busy {
    my ($mpm) = @_;
    my $httpd = busy($mpm);
    my @held = map { hold($httpd, 'acquire', 'gate', $insert) } 1 .. 2;
    $httpd->signal('WINCH');
    $httpd->wait_log(qr/shutting down gracefully/);
    is_deeply [map { $_->{status} } let_go(@held)], [200, 200],
        'gracefully stopped: all are answered';
    $httpd->wait_end;
    rows_done(2, '... and have written their rows');
    no_backend_left();
    return;
}

sub gracefully_restarted_while_busy {
    my ($mpm) = @_;
    my $httpd = busy($mpm);
    my @child = $httpd->children;
    my @held = map { hold($httpd, 'acquire', 'gate', $insert) } 1 .. 2;
    my @waiting = waiting($httpd);
    $httpd->graceful;
    my @answer = (let_go(@held), finish(@waiting));
    is_deeply [map { told($_, 'status') } @answer], [(0) x 5],
        'gracefully restarted: requests with a connection keep it, waiting requests get one';
    rows_done(2, '... and use it');
    $httpd->wait_gone(@child);
    ok poll_until { backends($pg, 'life') == 1 }, '... then the old backends end';
    $httpd->stop;
    return;
}

# ---- MaxConnectionsPerChild

sub short_lived {
    my ($mpm) = @_;
    my $httpd = probed("${conf}MaxConnectionsPerChild 20\n",
        mpm => $mpm, children => 2, threads => 4);
    my @child = $httpd->children;
    my $load = under_load($httpd);
    $httpd->wait_gone(@child);
    only_200($load, 'MaxConnectionsPerChild');
    my @backend = map { backends_of($httpd, $_) } @child;
    ok @backend && gone(@backend), '... the backends end with their children';
    $httpd->stop;
    no_backend_left();
    return;
}

# ---- forking

# A CGI script that lists the descriptors that it has inherited.
my $script = <<'CGI';
#!/bin/sh
echo "Content-Type: text/plain"
echo
for fd in /proc/$$/fd/*; do echo "fd=${fd##*/} $(readlink $fd)"; done
CGI

sub forked {
    my ($mpm, $module) = @_;
    my $threads = $mpm eq 'prefork' ? 1 : 4;
    my $httpd = probed(<<"CONF", mpm => $mpm, threads => $threads, modules => [$module]);
${conf}PgPoolMax 1
<IfModule cgid_module>
  ScriptSock \${DIR}/cgisock
</IfModule>
<Location /cgi>
  SetHandler cgi-script
  Options ExecCGI
</Location>
CONF
    my $file = $httpd->dir . '/htdocs/cgi';
    my $pid = told(probe($httpd, 'acquire'), 'pid');
    my %script = (
        'a script'        => [200, $script],
        'no interpreter'  => [500, "#!/there/is/none\n"],
        'no answer'       => [500, "#!/bin/sh\nkill -9 \$\$\n"],
    );
    for my $name (sort keys %script) {
        my ($status, $text) = @{ $script{$name} };
        Httpd::spew($file, $text);
        chmod 0755, $file;
        my $answer = $httpd->get('/cgi');
        is $answer->{status}, $status, "$module: $name";
        unlike $answer->{content}, qr/^fd=(?![012] ).*(?:socket|eventfd)/m, '... inherits nothing';
        tells probe($httpd, 'acquire', 'sql=SELECT 1'), { pid => $pid, value => 1 },
            '... and the connection is in use as before';
    }
    $httpd->stop;
    no_backend_left();
    return;
}

for my $mpm (mpms()) {
    subtest $mpm => sub {
        my $httpd = probed($conf, mpm => $mpm, children => 2, threads => 4);
        started($httpd);
        gracefully_restarted($httpd);
        restarted($httpd);
        killed($httpd);
        $httpd->stop;
        no_backend_left();
        short_lived($mpm);
        forked($mpm, $_) for grep { Httpd::has_module($_) } 'cgi', $mpm eq 'prefork' ? () : 'cgid';
    };
    subtest "$mpm, busy" => sub {
        if ($mpm eq 'prefork') {
            stopped_while_busy_alone();
            # Several tries, since the signal may come at a harmless moment.
            my $tries = ($ENV{PGPOOL_SANITIZE} // '') eq 'address' ? 0 : 5;
            stopped_while_allocating() for 1 .. $tries;
        }
        else {
            stopped_while_busy($mpm);
            gracefully_restarted_while_busy($mpm);
        }
        gracefully_stopped_while_busy($mpm);
    };
}

done_testing;
