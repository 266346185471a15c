package Httpd;

# A private httpd in a directory of its own, for one test.
#
#   my $httpd = Httpd->new(modules => [qw(pgpool pgpool_query)], conf => <<'CONF');
#   PgPoolConninfo "..."
#   CONF
#   $httpd->start;
#   is $httpd->get('/here')->{status}, 200;
#   my @slow = map { $httpd->begin('/slow') } 1 .. 4;   # sent without waiting: see Pending
#   my @answer = Pending::finish(@slow);
#   $httpd->stop;                  # fails the test if a child crashed or a sanitizer reported
#
# The configuration may use ${PORT} and ${DIR}.  httpd runs as the test's user, who is not root.

use strict;
use warnings;

use File::Spec::Functions qw(rel2abs tmpdir);
use File::Temp ();
use HTTP::Tiny;
use IO::Socket::INET;
use List::Util qw(max);
use Load;
use Pending;
use Poll;
use POSIX qw(WNOHANG);
use Test::More ();

# Modules without which httpd answers nothing.
my @BASE_MODULES = qw(unixd log_config authn_core authz_core);

my @started;

# mpm       event, worker or prefork; default: an MPM with threads, since most tests want several
#           requests at a time in one child.  If this httpd has no such MPM, the test ends.
# modules   names without "mod_": mod_pgpool's, the test helpers' or httpd's own; default pgpool
# conf      directives
# preload   names of libraries in .build/t for LD_PRELOAD
# env       environment of httpd, NAME => value
# children, threads   number of children, and threads of each; prefork: a child for each thread
sub new {
    my ($class, %option) = @_;
    my $self = bless {
        mpm      => $option{mpm} // threaded_mpm(),
        modules  => ['pgpool'],
        conf     => '',
        children => 1,
        threads  => 8,
        old      => [],
        preload  => [],
        env      => {},
        port     => 1,
        killed   => {},
        %option,
        dir => File::Temp->newdir('httpd-XXXXXX', DIR => $ENV{TESTDIR} || tmpdir),
    }, $class;
    mkdir "$self->{dir}/htdocs" or die "$self->{dir}/htdocs: $!";
    return $self;
}

sub dir  { my ($self) = @_; return "$self->{dir}" }
sub port { my ($self) = @_; return $self->{port} }
sub pid  { my ($self) = @_; return $self->{pid} }

# ---- configuration

# Set the directives, for the next start or reload.
sub conf {
    my ($self, $text) = @_;
    $self->{conf} = $text;
    return $self->write_conf;
}

# Write a file below the document root.
sub put_file {
    my ($self, $name, $text) = @_;
    return spew("$self->{dir}/htdocs/$name", $text);
}

# Exit code and output of `httpd -t` with further arguments, such as -D DUMP_PGPOOL.
sub config_test {
    my ($self, @argument) = @_;
    $self->write_conf;
    my $pid = open(my $output, '-|') // die "fork: $!";
    if (!$pid) {
        open STDERR, '>&', \*STDOUT or die "dup: $!";
        $self->exec_httpd('-t', @argument);
    }
    my $text = do { local $/; <$output> };
    close $output;
    return ($? >> 8, $text);
}

sub write_conf {
    my ($self) = @_;
    my $dir = $self->dir;
    my $load = join '', map { load_module($_) } "mpm_$self->{mpm}", @BASE_MODULES, @{ $self->{modules} };
    my $limits = $self->limits;
    spew("$dir/httpd.conf", <<"CONF");
Define DIR $dir
Define PORT $self->{port}
ServerRoot "$dir"
DefaultRuntimeDir "$dir"
PidFile "$dir/pid"
DocumentRoot "$dir/htdocs"
Listen 127.0.0.1:$self->{port}
ServerName 127.0.0.1:$self->{port}
${load}${limits}ErrorLog "$dir/error_log"
LogLevel notice
<IfModule pgpool_module>
  LogLevel pgpool:debug
</IfModule>
LogFormat "\\"%r\\" %>s %B %{pgpool-default}n" test
CustomLog "$dir/access_log" test "expr=%{REQUEST_METHOD} != 'OPTIONS'"
$self->{conf}
CONF
    return $self;
}

# The directive that loads a module; '' if the module is built in.
sub load_module {
    my ($name) = @_;
    return '' if is_built_in($name);
    my $file = module_file($name) || die "there is no mod_$name.so\n";
    my $symbol = $name eq 'pgpool_dbd' ? 'dbd' : $name; # it takes mod_dbd's place
    return "LoadModule ${symbol}_module $file\n";
}

sub module_file {
    my ($name) = @_;
    my $build = rel2abs($ENV{PGPOOL_BUILD} || '.build');
    return (grep { -e } map { "$_/mod_$name.so" } $build, "$build/t", apxs('LIBEXECDIR'))[0];
}

# In httpd's list an MPM is "event.c", a module "mod_NAME.c".
sub is_built_in {
    my ($name) = @_;
    my %is_file = map { $_ => 1 } httpd_says('-l') =~ /(\S+)\.c$/mg;
    return $is_file{"mod_$name"} || $is_file{ $name =~ s/^mpm_//r };
}

sub has_module { my ($name) = @_; return module_file($name) || is_built_in($name) }

# The MPMs to test with: those in $ENV{PGPOOL_MPM}, or all that this httpd has.
sub mpms { return $ENV{PGPOOL_MPM} ? split ' ', $ENV{PGPOOL_MPM} : available_mpms() }

# A built-in MPM is the only one.
sub available_mpms {
    my @all = qw(event worker prefork);
    my @built_in = grep { is_built_in("mpm_$_") } @all;
    return @built_in ? @built_in : grep { module_file("mpm_$_") } @all;
}

sub threaded_mpm {
    my ($mpm) = grep { $_ ne 'prefork' } mpms(), available_mpms();
    return $mpm if $mpm;
    die 'no MPM is found for ' . program() . "\n" if !available_mpms();
    Test::More::plan(skip_all => 'wants an MPM with threads') if !Test::More->builder->current_test;
    Test::More::note('the rest wants an MPM with threads');
    Test::More::done_testing();
    exit 0;
}

# httpd starts all children at once and keeps them, so that a test can count them.
sub limits {
    my ($self) = @_;
    my ($children, $threads) = @$self{qw(children threads)};
    my $all = $children * $threads;
    return <<"PREFORK" if $self->{mpm} eq 'prefork';
StartServers $all
MinSpareServers $all
MaxSpareServers $all
MaxRequestWorkers $all
PREFORK
    return <<"THREADED";
ServerLimit @{[max(16, $children)]}
ThreadLimit @{[max(64, $threads)]}
ThreadsPerChild $threads
StartServers $children
MaxRequestWorkers $all
MinSpareThreads 1
MaxSpareThreads @{[$all + $threads]}
THREADED
}

# ---- life

# Start httpd, and return when it answers; die with its log if it does not.  Another process may
# take the chosen port before httpd does; then try another port.
sub start {
    my ($self) = @_;
    push @started, $self;
    for my $attempt (1 .. 20) {
        my $from = $self->log_end;
        $self->{port} = free_port();
        $self->write_conf->spawn;
        return $self if poll_until { !$self->alive || $self->answers } 60 and $self->alive;
        last if $self->error_log($from) !~ /could not bind/;
    }
    die "httpd does not start:\n", $self->log_tail, "\n";
}

sub spawn {
    my ($self) = @_;
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        # httpd signals its whole process group.
        setpgrp 0, 0;
        open STDIN,  '<',  '/dev/null'              or die "stdin: $!";
        open STDERR, '>>', $self->dir . '/error_log' or die "error_log: $!";
        open STDOUT, '>&', \*STDERR                 or die "stdout: $!";
        $self->exec_httpd('-DFOREGROUND');
    }
    $self->{pid} = $pid;
    return;
}

# Replace this process with httpd.  The tests' PG* variables are defaults of libpq and would hide a
# setting that a configuration lacks.  If the test is killed, httpd ends, too.
sub exec_httpd {
    my ($self, @argument) = @_;
    delete @ENV{ grep { /\APG(?!POOL)/ } keys %ENV };
    exec qw(setpriv --pdeathsig TERM env), $self->environment, program(),
        '-f', $self->dir . '/httpd.conf', @argument
        or POSIX::_exit(127);
}

sub alive {
    my ($self) = @_;
    return 0 if !$self->{pid};
    return 1 if waitpid($self->{pid}, WNOHANG) == 0;
    $self->{exit_status} = $?;
    delete $self->{pid};
    return 0;
}

# Whether all children are there and one answers.  "OPTIONS *" reaches none of a test's handlers.
sub answers {
    my ($self) = @_;
    return slurp($self->dir . '/pid') eq "$self->{pid}\n"
        && $self->children >= $self->processes
        && Pending->new($self->port, '*', method => 'OPTIONS')->finish->{success};
}

# How many child processes there should be.
sub processes {
    my ($self) = @_;
    return $self->{children} * ($self->{mpm} eq 'prefork' ? $self->{threads} : 1);
}

# Stop httpd: with TERM (the default) at once, with WINCH gracefully.  Fails the test if there were
# problems.
sub stop {
    my ($self, $signal) = @_;
    return if !$self->{pid};
    if ($self->alive) {
        $self->{stopping} = $self->log_end;
        $self->signal($signal // 'TERM');
    }
    else {
        Test::More::fail('httpd is still there');
    }
    return $self->wait_end;
}

# Wait until httpd has ended, after a signal that stops it.
sub wait_end {
    my ($self) = @_;
    poll_until { !$self->alive } 60 or $self->kill_all;
    Test::More::fail($_) for $self->problems;
    return;
}

sub kill_all {
    my ($self) = @_;
    Test::More::fail('httpd stops when it is told');
    return $self->shoot;
}

# Kill httpd and its children, which may hang.
sub shoot {
    my ($self) = @_;
    kill KILL => $self->children, $self->{pid};
    waitpid delete $self->{pid}, 0;
    return;
}

# Both return when the new configuration serves.
sub graceful { my ($self) = @_; return $self->reload('USR1') }
sub restart  { my ($self) = @_; return $self->reload('HUP') }

sub reload {
    my ($self, $signal) = @_;
    my $from = $self->log_end;
    $self->{old} = [$self->children];
    $self->signal($signal);
    $self->wait_log(qr/resuming normal operations/, from => $from);
    return;
}

sub signal {
    my ($self, $signal) = @_;
    $self->rest if $signal =~ /TERM|HUP/;
    kill $signal => $self->{pid} or die "httpd is gone: ", $self->log_tail, "\n";
    return;
}

# Wait until all threads sleep, 5 s at most.  httpd's MPM event crashes if it closes all connections
# at the moment in which a thread finishes with one: it uses the socket after the socket's pool is
# gone.
sub rest {
    my ($self) = @_;
    my $all_asleep = sub {
        my @stat = map { slurp($_) } map { glob "/proc/$_/task/*/stat" } $self->children;
        return !grep { !/\A\d+ \(.*\) S /s } @stat;
    };
    poll_until { $all_asleep->() } 5;
    return;
}

# The pids of the child processes, in order of age.
sub children { my ($self) = @_; return children_of($self->{pid}) }

sub children_of {
    my ($pid) = @_;
    my @stat = map { slurp($_) } glob '/proc/[0-9]*/stat';
    my %parent = map { /\A(\d+) \(.*\) \S (\d+)/s ? ($1 => $2) : () } @stat;
    my @child = sort { $a <=> $b } grep { $parent{$_} == $pid } keys %parent;
    return @child;
}

# Kill the oldest child; httpd will start another one.  Returns the child's pid when it has gone.
#
# The old children of a restart end first.  While httpd 2.4 replaces them it starts two children for
# one that is killed, and the next graceful restart tells one too few of them to end
# (server_main_loop() and active_daemons_limit in its event.c).
sub kill_child {
    my ($self, $signal) = @_;
    $self->wait_gone(@{ $self->{old} });
    my ($child) = $self->children;
    $self->{killed}{$child} = 1;
    kill $signal // 'KILL', $child;
    $self->wait_gone($child);
    return $child;
}

# Count it as no problem if one of these children ends by a signal.
sub may_die {
    my ($self, @child) = @_;
    $self->{killed}{$_} = 1 for @child;
    return;
}

# Wait until these children have ended, as the old ones do some time after a graceful restart.
sub wait_gone {
    my ($self, @old) = @_;
    my %old = map { $_ => 1 } @old;
    poll_until { !grep { $old{$_} } $self->children } 60 or die "@old: some live on\n";
    return;
}

# Wait until there are as many children as there should be.  A graceful restart ends that many: one
# more would stay for good.
sub wait_complete {
    my ($self) = @_;
    poll_until { $self->children == $self->processes } 60 or die 'children: ', scalar $self->children, "\n";
    return;
}

# ---- requests; the answers are HTTP::Tiny's

sub url { my ($self, $path) = @_; return "http://127.0.0.1:$self->{port}$path" }
sub get { my ($self, $path, @option) = @_; return $self->request(GET => $path, @option) }

sub post {
    my ($self, $path, $content, $option) = @_;
    return $self->request(POST => $path, { content => $content, %{ $option // {} } });
}

sub request {
    my ($self, $method, $path, $option) = @_;
    return HTTP::Tiny->new(keep_alive => 0, timeout => 60)
        ->request($method, $self->url($path), $option // {});
}

# Send a request, and do not wait for the answer; see Pending.
sub begin {
    my ($self, $path, %option) = @_;
    return Pending->new($self->port, $path, %option);
}

# The answers to this many requests for one path, sent at once, each with the seconds that it took.
sub get_parallel {
    my ($self, $number, $path, %option) = @_;
    my @pending = map { $self->begin($path, %option) } 1 .. $number;
    return Pending::finish(@pending);
}

# Clients in the background; see Load.
sub load {
    my ($self, $path, %option) = @_;
    return Load->new($self->url($path), %option);
}

# ---- logs

sub access_log { my ($self) = @_; return slurp($self->dir . '/access_log') }
sub log_end    { my ($self) = @_; return -s $self->dir . '/error_log' // 0 }

# The text of the error log since an earlier log_end, or all of it.
sub error_log {
    my ($self, $from) = @_;
    return substr slurp($self->dir . '/error_log'), $from // 0;
}

sub log_tail {
    my ($self) = @_;
    my @line = split /^/, $self->error_log;
    return join '', @line > 20 ? @line[-20 .. -1] : @line;
}

# Wait until the error log matches, from an earlier log_end on.  Returns what the pattern captured,
# or 1; dies after the deadline.
sub wait_log {
    my ($self, $pattern, %option) = @_;
    my @found;
    poll_until { @found = $self->error_log($option{from}) =~ $pattern } $option{deadline}
        or die "no $pattern in the error log\n";
    return wantarray ? @found : $found[0];
}

# Crashes, children that httpd had to kill, and reports of the sanitizers, each as a text.
#
# A child of MPM event or worker may crash when it stops at once with requests under way: httpd's
# close_worker_sockets() uses the sockets of connections that the worker threads free at that
# moment.  So a crash at the stop is no problem; the address sanitizer reports a crash in
# mod_pgpool.
sub problems {
    my ($self) = @_;
    my $killed = join '|', keys %{ $self->{killed} }, 'none';
    my $log = $self->error_log;
    substr($log, $self->{stopping}) =~ s/exit signal Segmentation fault//g if defined $self->{stopping};
    my @line = grep { !/child (?:pid|process) (?:$killed)\b/ }
        $log =~ /^(.*(?:exit signal|sending a SIGKILL).*)$/mg;
    push @line, "httpd's exit status is $self->{exit_status}" if $self->{exit_status};
    my $reports = $self->dir . '/sanitizer.*';
    return @line, map { ours(slurp($_)) } glob $reports;
}

# ---- sanitizers: the modules are built with one, httpd is not, so it is loaded before httpd

# httpd has no frame pointers, so only the slow unwinder finds the code that allocated a leak.
my %SANITIZER = (
    thread  => [qw(libtsan.so TSAN_OPTIONS ignore_noninstrumented_modules=1:exitcode=0)],
    address => [qw(libasan.so ASAN_OPTIONS fast_unwind_on_malloc=0:exitcode=0)],
);

# The parts of a sanitizer's report that are about mod_pgpool.
sub ours {
    my ($report) = @_;
    return if $report =~ /SEGV/ && $report =~ /in apr_os_sock_get / && $report !~ /mod_pgpool/;
    return leaks($report) if $report =~ /LeakSanitizer/;
    return $report if $report !~ /ThreadSanitizer/;
    return grep { /WARNING: ThreadSanitizer/ && !handed_on($_) && !ended_late($_) && !is_httpds_signal($_) } split /^={18}\n/m, $report;
}

# Whether a report is about a signal handler of httpd that changes errno.
sub is_httpds_signal { my ($report) = @_; return $report =~ /signal handler spoils errno[^\n]*\n    #0 (?!.*mod_pgpool)/ }

# On a slow machine a child may give up waiting for its keeper, and log that (PGP1009); nobody joins
# the keeper's thread then, although it ends.
sub ended_late { my ($leak) = @_; return $leak =~ /thread leak/ && $leak =~ /, finished\)/ }

# httpd and its other modules have leaks of their own; only leaks with mod_pgpool in their stack
# count.  An APR pool that lives as long as the process is no leak: the sanitizer cannot follow
# APR's pointers to it.
sub leaks {
    my ($report) = @_;
    return grep { /mod_pgpool/ && !/^\s+#1 \S+ in apr_(?:allocator|pool)_create/m }
        split /\n\n/, $report;
}

# Whether a reported race is none.  httpd hands a connection and a request's memory from thread to
# thread with atomics and system calls that the sanitizer does not see, since httpd is not
# instrumented.  The files named here work in such memory, which one thread uses at a time; threads
# share only the core.  The sanitizer may have forgotten one of the two accesses.
sub handed_on {
    my ($race) = @_;
    my $frame = qr/    #\d+ [^\n]*\n/;
    my @at = $race =~ /^  \w[^\n]* of size [^\n]*\n$frame*?    #\d+ \S+ (\S+\.c):\d+ \(mod_/mg;
    push @at, $at[0] if @at == 1 && $race =~ /\[failed to restore the stack\]/;
    return @at == 2 && !grep { !/mod_pgpool_(?:api|bracket|client|consumer|dbd(?:_\w+)?|execute|identity|lease|outcome|pin|probe|query(?:_\w+)?|release|request|statement)\.c\z/ } @at;
}

# Arguments of env(1).  A sanitizer's library has to come before all others.
sub environment {
    my ($self) = @_;
    my %env = %{ $self->{env} };
    my $build = rel2abs($ENV{PGPOOL_BUILD} || '.build');
    my @preload = map { "$build/t/$_.so" } @{ $self->{preload} };
    if (my $sanitizer = $SANITIZER{ $ENV{PGPOOL_SANITIZE} || 'none' }) {
        my ($library, $variable, $options) = @$sanitizer;
        my $cc = $ENV{PGPOOL_CC} || 'gcc';
        chomp(my $file = qx{$cc -print-file-name=$library});
        unshift @preload, $file;
        $env{$variable} = "$options:log_path=" . $self->dir . '/sanitizer';
    }
    $env{LD_PRELOAD} = join ':', @preload if @preload;
    return map { "$_=$env{$_}" } sort keys %env;
}

# ---- helpers

my (%apxs, %httpd_says);

sub httpd_says {
    my ($option) = @_;
    my $httpd = program();
    return $httpd_says{$option} //= qx{$httpd $option 2>&1};
}

sub program { return apxs('SBINDIR') . '/' . apxs('PROGNAME') }

sub apxs {
    my ($name) = @_;
    my $apxs = $ENV{APXS} || 'apxs';
    return $apxs{$name} //= qx{$apxs -q $name} =~ s/\s+\z//r;
}

# A free port below the kernel's range for the clients' ends of connections.
sub free_port {
    while (1) {
        my $port = 10_200 + int rand 22_000;
        my $address = "127.0.0.1:$port";
        return $port if IO::Socket::INET->new(LocalAddr => $address, Listen => 1, ReuseAddr => 1);
    }
}

# The text of a file; '' if it does not exist.
sub slurp {
    my ($file) = @_;
    open my $in, '<', $file or return '';
    local $/;
    return <$in> // '';
}

sub spew {
    my ($file, $text) = @_;
    open my $out, '>', $file or die "$file: $!";
    print {$out} $text;
    close $out or die "$file: $!";
    return;
}

# Stop the httpds that a test has left running; if the test has failed, show httpd's log.
END {
    my $status = $?;
    for my $httpd (@started) {
        $httpd->stop;
        Test::More::diag("error log of httpd:\n", $httpd->log_tail)
            if $status || !Test::More->builder->is_passing;
    }
    $? = $status || (Test::More->builder->is_passing ? 0 : 1);
}

1;
