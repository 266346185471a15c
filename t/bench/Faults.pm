package Faults;

# The effect of faults on requests through mod_dbd and through mod_pgpool: each fault once for each
# module, on an httpd of its own, with the same number of connections to the same server.
#
# A request through mod_dbd may never be answered: so a client gives up after some time, and the
# bench kills mod_dbd's httpd.

use strict;
use warnings;

use Bench;
use FaultProxy;
use HTTP::Tiny;
use IO::Select;
use List::Util qw(max);
use PgPoolTest;
use Time::HiRes qw(sleep);

# Seconds that a client waits; longer than any of the faults.
my $patience = 20;
my $tries = 1000;

my %handler = (dbd => 'bench-select', pgpool => 'bench-pgpool');
my $proxy;

sub faults {
    $proxy = FaultProxy->new(server);
    title('faults', 'mod_dbd', 'mod_pgpool');
    compare(\&restart);
    compare(\&storm);
    compare(\&down);
    compare(\&frozen);
    compare(\&black_hole);
    compare(\&stuck_readers);
    compare(\&left_behind);
    return;
}

# Run a measurement with each module and print its rows.  It is called with "dbd" or "pgpool", and
# returns pairs of a row's name and its result.
sub compare {
    my ($measure) = @_;
    my @dbd    = $measure->('dbd');
    my @pgpool = $measure->('pgpool');
    line(@{ shift @dbd }, (shift @pgpool)->[1]) while @dbd;
    return;
}

# ---- httpd

# Run `work` with an httpd, and return its result.  mod_dbd's httpd is killed, since it may not end.
sub with_httpd {
    my ($way, $conninfo, $connections, $conf, $work) = @_;
    my $httpd = bench_httpd($conninfo, $connections, $conf);
    my $seen = $work->($httpd);
    $way eq 'dbd' ? $httpd->shoot : $httpd->stop;
    return $seen;
}

sub runs {
    my ($way, $path, $sql) = @_;
    return location($path, $handler{$way}, qq(BenchSQL "$sql"));
}

sub ask {
    my ($httpd, $path, $timeout) = @_;
    return HTTP::Tiny->new(timeout => $timeout // $patience)->get($httpd->url($path));
}

# ---- under load

# Eight clients send requests before the fault, while it lasts, and afterwards.  The fault may
# return further clients that it has started.
sub under_load {
    my ($way, $conninfo, $fault) = @_;
    return with_httpd($way, $conninfo, 8, runs($way, 'ask', 'SELECT 1'), sub {
        my ($httpd) = @_;
        my $load = clients($httpd);
        sleep 1;
        my $began = now();
        my @other = $fault->($httpd);
        my $over = now();
        my $first = first_answer($httpd, $over);
        sleep 1;
        my @answer = map { $_->finish } $load, @other;
        return { began => $began, over => $over, first => $first, answers => \@answer };
    });
}

# With a short pause, so that refused clients leave the processor to the server.
sub clients {
    my ($httpd) = @_;
    return $httpd->load('/ask', clients => 8, keep_alive => 1, record => 1, pause => 0.005, timeout => $patience);
}

# The status of the first request after the fault; if it is not 200, also the time until one was.
sub first_answer {
    my ($httpd, $over) = @_;
    my $status = ask($httpd, '/ask')->{status};
    return $status if $status == 200;
    poll_until { ask($httpd, '/ask')->{status} == 200 } $patience;
    return sprintf '%d for %.1f s', $status, now() - $over;
}

sub failed { return grep { $_->{status} != 200 } @_ }

sub of {
    my ($some, $all) = map { scalar @$_ } @_;
    return $all ? "$some of $all" : 'none answered';
}

# Failed requests: some got no connection (503), the others' queries were interrupted.
sub failures {
    my ($name, $seen) = @_;
    my @failed = failed(@{ $seen->{answers} });
    return (
        ["$name: failed", of(\@failed, $seen->{answers})],
        ['... of them without a connection', scalar grep { $_->{status} == 503 } @failed],
    );
}

sub afterwards {
    my ($seen) = @_;
    my @after = grep { $_->{began} >= $seen->{over} } @{ $seen->{answers} };
    return ['... failed once it was over', of([failed(@after)], \@after)];
}

# The seconds of the requests that began during the fault.
sub meanwhile {
    my ($seen) = @_;
    return map { $_->{seconds} }
        grep { $_->{began} > $seen->{began} + 0.9 && $_->{began} < $seen->{over} - 0.9 } @{ $seen->{answers} };
}

sub longest {
    my $longest = max(@_) // return 'none';
    return $longest < $patience ? sprintf '%.1f s', $longest : "over $patience s";
}

sub restart {
    my ($way) = @_;
    my $seen = under_load($way, conninfo(server), sub { server->restart; return });
    return failures('server restarted', $seen);
}

sub storm {
    my ($way) = @_;
    my $seen = under_load($way, conninfo(server, via($proxy)), sub {
        for (1 .. 10) {
            $proxy->drop;
            sleep 0.5;
        }
        return;
    });
    return failures('all connections reset 10 times', $seen);
}

sub down {
    my ($way) = @_;
    my $seen = under_load($way, conninfo(server), sub {
        server->stop;
        sleep 8;
        server->start;
        return;
    });
    my @seconds = meanwhile($seen);
    return (
        ['server down for 8 s: median answer', @seconds ? sprintf '%.1f ms', 1000 * median(@seconds) : 'none'],
        ['... longest answer', longest(@seconds)],
        ['... first request after its start', $seen->{first}],
        afterwards($seen),
    );
}

sub frozen {
    my ($way) = @_;
    return silence($way, 'server frozen for 12 s', 12, sub { freeze(server) }, sub { thaw(server) });
}

sub black_hole {
    my ($way) = @_;
    return silence($way, 'network mute for 10 s', 10, sub { $proxy->mode('hole') }, sub { $proxy->mode('pass') });
}

# The clients' queries are under way when the silence begins, and wait for their answers.  So
# further clients begin during the silence.
sub silence {
    my ($way, $name, $seconds, $begin, $end) = @_;
    my $seen = under_load($way, conninfo(server, via($proxy)), sub {
        my ($httpd) = @_;
        $begin->();
        sleep 1;
        my $other = clients($httpd);
        sleep $seconds - 1;
        $end->();
        return $other;
    });
    return (
        ["$name: longest answer", longest(meanwhile($seen))],
        afterwards($seen),
    );
}

# ---- readers that do not read

# How many of ten requests are served within 3 s while eight clients do not read their responses.
sub others_served {
    my ($way, $conf) = @_;
    my $small_sockets = "SendBufferSize 4096\n";
    return with_httpd($way, conninfo(server), 8, $conf . $small_sockets . runs($way, 'ask', 'SELECT 1'), sub {
        my ($httpd) = @_;
        my @stuck = map { $httpd->begin('/large', rcvbuf => 4096) } 1 .. 8;
        IO::Select->new($_->{socket})->can_read($patience) or die "no answer begins\n" for @stuck;
        my @served = grep { ask($httpd, '/ask', 3)->{status} == 200 } 1 .. 10;
        return of(\@served, [1 .. 10]);
    });
}

# mod_pgpool_query releases its connection before it writes; a handler with mod_dbd cannot.
sub stuck_readers {
    my ($way) = @_;
    my $large = "SELECT repeat('x', 4194304)";
    my %releasing = (
        dbd    => runs('dbd', 'large', $large),
        pgpool => location('large', 'pgpool-query', qq(PgPoolQuery "$large")),
    );
    my $of_large = others_served($way, $releasing{$way});
    my $of_small = others_served($way, runs($way, 'large', "SELECT repeat('x', 60000)"));
    return (
        ['8 stuck readers of 4 MB: others served', $of_large],
        ['8 stuck readers of 60 KB, not released: others', $of_small],
    );
}

# ---- state that a request leaves

# One request leaves some state, and another one looks, many times.  Returns how often the other was
# harmed.
sub left_for_others {
    my ($way, $leave, $look, $harmed) = @_;
    return with_httpd($way, conninfo(server), 2, runs($way, 'leave', $leave) . $look, sub {
        my ($httpd) = @_;
        my $client = HTTP::Tiny->new(keep_alive => 1, timeout => $patience);
        my $count = 0;
        for (1 .. $tries) {
            $client->get($httpd->url('/leave'));
            $count++ if $harmed->($client->get($httpd->url('/look')));
        }
        return "$count of $tries";
    });
}

sub left_behind {
    my ($way) = @_;
    my $lock = q(SET LOCAL lock_timeout = '20ms'; SELECT pg_advisory_xact_lock(1));
    return (
        ['transaction left open: writes of others lost', writes_lost($way)],
        ['failed transaction left: others fail', left_for_others($way, 'BEGIN; SELECT 1/0',
            runs($way, 'look', 'SELECT 1'), sub { $_[0]{status} != 200 })],
        ['setting left: others see it', left_for_others($way, 'SET work_mem = 1234; SELECT 1',
            runs($way, 'look', 'SHOW work_mem'), sub { $_[0]{content} ne '4MB' })],
        # The other request has a connection outside of the pool, and waits as long as a reset may
        # take.
        ['advisory lock left: others are locked out', left_for_others($way, 'SELECT pg_try_advisory_lock(1)',
            location('look', 'bench-thread', qq(BenchSQL "$lock")), sub { $_[0]{status} != 200 })],
    );
}

# How many rows are missing although their requests were answered with 200.
sub writes_lost {
    my ($way) = @_;
    query(server, 'CREATE TABLE IF NOT EXISTS kept (n int); TRUNCATE kept');
    my $written = 0;
    left_for_others($way, 'BEGIN; SELECT 1', runs($way, 'look', 'INSERT INTO kept VALUES (1) RETURNING n'),
        sub { $written++ if $_[0]{status} == 200; return });
    return $written - query(server, 'SELECT count(*) FROM kept') . " of $written";
}

1;
