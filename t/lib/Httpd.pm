package Httpd;

# A private httpd in a directory of its own, for one test.
#
#   my $httpd = Httpd->new(modules => [qw(pgpool pgpool_query)], conf => <<'CONF');
#   PgPoolConninfo "..."
#   CONF
#   $httpd->start;
#   is $httpd->get('/here')->{status}, 200;
#   my @slow = map { $httpd->begin('/slow') } 1 .. 4;   # sent, not waited for: see Pending
#   my @answer = Pending::finish(@slow);
#   $httpd->stop;                  # fails the test if a child crashed or a sanitizer spoke
#
# The configuration may say ${PORT} and ${DIR}.  httpd runs as the user who runs the test, which is
# never root.

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

# What httpd needs to answer anything at all.
my @BASE_MODULES = qw(unixd log_config authn_core authz_core);

my @started;

# mpm       event, worker or prefork; else one with threads, which most tests want: a child has one pool
#           and several requests at a time.  Where there is none, the test ends.
# modules   names without "mod_": ours, a test's helper's or httpd's own; default pgpool
# conf      directives
# preload   of .build/t, what is to stand between httpd and its libraries
# env       of httpd, NAME => value
# children, threads   so many children of so many threads; prefork: the product in children
sub new {
    my ($class, %option) = @_;
    my $self = bless {
        mpm      => $option{mpm} // threaded_mpm(),
        modules  => ['pgpool'],
        conf     => '',
        children => 1,
        threads  => 8,
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

# Other directives, from the next start or reload on.
sub conf {
    my ($self, $text) = @_;
    $self->{conf} = $text;
    return $self->write_conf;
}

# A file below the document root.
sub put_file {
    my ($self, $name, $text) = @_;
    return spew("$self->{dir}/htdocs/$name", $text);
}

# Exit code and output of `httpd -t`; arguments come after it, as -D DUMP_PGPOOL.
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

# What loads it; nothing if it is built in.
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

# MPMs are event.c and so on in httpd's list.
sub is_built_in {
    my ($name) = @_;
    my %is_file = map { $_ => 1 } httpd_says('-l') =~ /(\S+)\.c$/mg;
    return $is_file{"mod_$name"} || $is_file{ $name =~ s/^mpm_//r };
}

sub has_module { my ($name) = @_; return module_file($name) || is_built_in($name) }

# The MPMs to test on: those of $ENV{PGPOOL_MPM}, or those that this httpd has.
sub mpms { return $ENV{PGPOOL_MPM} ? split ' ', $ENV{PGPOOL_MPM} : available_mpms() }

# One that is built in is the only one.
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

# All children are there from the start and stay, so that a test can count them.
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

# Returns when it answers, dies with its log when it does not.  Another process may take the port
# between choice and use, then another one is tried.
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

# Replaces the process.  The rig's PG* variables are defaults of libpq and would hide what is missing
# in a configuration; a test that is killed takes its httpd along.
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

# All children are there and one answers.  "OPTIONS *" reaches no handler of a test's.
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

# With TERM (the default) at once, with WINCH gracefully.  Fails the test when it leaves problems.
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

# For what a signal has begun.
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

# Whatever hangs in it, and whatever its children would say to TERM.
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

# Until all threads sleep, or for a while: httpd's event MPM crashes when it is told to close all
# connections in the instant in which one of its threads is through with one, since it looks at the
# socket although its pool is gone.
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

# The oldest child, hard; httpd will start another.  Returns its pid when it has gone.
sub kill_child {
    my ($self, $signal) = @_;
    my ($child) = $self->children;
    $self->{killed}{$child} = 1;
    kill $signal // 'KILL', $child;
    $self->wait_gone($child);
    return $child;
}

# That one of these children ends by a signal is no problem.
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

# Wait until there are as many children as there should be.  A graceful restart tells so many to end:
# were there one more, it would stay for good.
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

# Sent, not waited for; see Pending.
sub begin {
    my ($self, $path, %option) = @_;
    return Pending->new($self->port, $path, %option);
}

# The answers to as many requests for one path at once, each with the seconds that it took.
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

# The text from an earlier log_end on, or all.
sub error_log {
    my ($self, $from) = @_;
    return substr slurp($self->dir . '/error_log'), $from // 0;
}

sub log_tail {
    my ($self) = @_;
    my @line = split /^/, $self->error_log;
    return join '', @line > 20 ? @line[-20 .. -1] : @line;
}

# Wait until the error log matches, from an earlier log_end on; returns what the pattern captured
# (or 1), dies when it does not come.
sub wait_log {
    my ($self, $pattern, %option) = @_;
    my @found;
    poll_until { @found = $self->error_log($option{from}) =~ $pattern } $option{deadline}
        or die "no $pattern in the error log\n";
    return wantarray ? @found : $found[0];
}

# Crashes, children that had to be shot, and what the sanitizers have found, each as a text.
#
# A child of MPM event or worker that is to stop at once, with requests under way, may crash by itself:
# httpd's close_worker_sockets() uses the sockets of connections that the worker threads free at this
# moment.  So a crash at the stop is no problem; one of ours is the address sanitizer's to report.
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

# httpd has no frame pointers, so only the slow unwinder sees who has allocated a leak.
my %SANITIZER = (
    thread  => [qw(libtsan.so TSAN_OPTIONS ignore_noninstrumented_modules=1:exitcode=0)],
    address => [qw(libasan.so ASAN_OPTIONS fast_unwind_on_malloc=0:exitcode=0)],
);

# What of a sanitizer's report is our affair.
sub ours {
    my ($report) = @_;
    return if $report =~ /SEGV/ && $report =~ /in apr_os_sock_get / && $report !~ /mod_pgpool/;
    return leaks($report) if $report =~ /LeakSanitizer/;
    return $report if $report !~ /ThreadSanitizer/;
    return grep { /WARNING: ThreadSanitizer/ && !handed_on($_) && !ended_late($_) && !is_httpds_signal($_) } split /^={18}\n/m, $report;
}

# A signal handler of httpd's that changes errno.
sub is_httpds_signal { my ($report) = @_; return $report =~ /signal handler spoils errno[^\n]*\n    #0 (?!.*mod_pgpool)/ }

# On a slow machine a child may cease to wait for its keeper, and say so (PGP1009); a keeper that ends
# after that is not joined.
sub ended_late { my ($leak) = @_; return $leak =~ /thread leak/ && $leak =~ /, finished\)/ }

# httpd and its other modules have leaks of their own; only what passes through our code counts.  A
# pool of APR's that lives as long as the process is none: the sanitizer cannot look into the memory
# that it is managed in.
sub leaks {
    my ($report) = @_;
    return grep { /mod_pgpool/ && !/^\s+#1 \S+ in apr_(?:allocator|pool)_create/m }
        split /\n\n/, $report;
}

# httpd hands a connection and the memory of a request from thread to thread with atomics and system
# calls that the sanitizer cannot see, since httpd is not instrumented.  The code that lives in such
# memory is used by one thread at a time all the same; what threads share is in the core.  Of a race's
# two accesses the sanitizer may have forgotten one.
sub handed_on {
    my ($race) = @_;
    my $frame = qr/    #\d+ [^\n]*\n/;
    my @at = $race =~ /^  \w[^\n]* of size [^\n]*\n$frame*?    #\d+ \S+ (\S+\.c):\d+ \(mod_/mg;
    push @at, $at[0] if @at == 1 && $race =~ /\[failed to restore the stack\]/;
    return @at == 2 && !grep { !/mod_pgpool_(?:api|bracket|client|consumer|dbd(?:_\w+)?|execute|identity|lease|outcome|pin|probe|query(?:_\w+)?|release|request|statement)\.c\z/ } @at;
}

# Arguments of env(1).  A sanitizer has to come before all other libraries.
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

# Below the range from which the kernel takes the client's end of connections.
sub free_port {
    while (1) {
        my $port = 10_200 + int rand 22_000;
        my $address = "127.0.0.1:$port";
        return $port if IO::Socket::INET->new(LocalAddr => $address, Listen => 1, ReuseAddr => 1);
    }
}

# What is not there yet reads as empty.
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

# A test that died or forgot has its httpd stopped, and a failed one shows what httpd said.
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
