#!/usr/bin/perl

# A connection that its handler does not release goes back as soon as the handler has finished, or
# with PgPoolRelease response as soon as the handler has ended its response, however slow the reader
# is; always, and only once.

use PgPoolTest;
use Crowd;
use IO::Select;
use IO::Socket::INET;
use Probe;

my $pg = postgres;
my $conninfo = conninfo($pg);
my ($mpm) = Httpd::mpms();
my $has_h2 = $mpm ne 'prefork' && Httpd::has_module('http2') && system('nghttp --version >/dev/null 2>&1') == 0;

my $number = 'PgPoolQuery "SELECT 42 AS n, pg_backend_pid() AS pid"';
my $large  = 'PgPoolQuery "SELECT repeat(md5(i::text), 32) AS s FROM generate_series(1, 4096) i"';
my $medium = $large =~ s/4096/200/r;

sub location {
    my ($path, @line) = @_;
    return join "\n", "<Location $path>", @line, "</Location>\n";
}

# Each section by default, and with PgPoolRelease response.  The server's sockets have small
# buffers, so a client that reads little is a slow reader.
my $sections = join '', map {
    my ($top, @release) = @$_;
    (location("$top/probe", 'SetHandler pgpool-probe', @release),
        location("$top/number", 'SetHandler pgpool-query', $number, @release),
        location("$top/large", 'SetHandler pgpool-query', $large, @release),
        location("$top/medium", 'SetHandler pgpool-query', $medium, @release),
        location("$top/deflated", 'SetHandler pgpool-query', $large, 'SetOutputFilter DEFLATE', @release),
        location("$top/page.shtml", 'Options +Includes', 'SetOutputFilter INCLUDES', @release),
        location("$top/missing", "ErrorDocument 404 $top/number", @release))
} [''], ['/response', 'PgPoolRelease response'];

my $h2 = $has_h2 ? 'Protocols h2c http/1.1' : '';
my $httpd = Httpd->new(threads => 24, modules => [qw(pgpool pgpool_query pgpool_probe include filter deflate),
    $has_h2 ? 'http2' : ()], conf => <<"CONF");
PgPoolConninfo "$conninfo"
PgPoolMin 1
PgPoolMax 1
PgPoolAcquireTimeout 60s
PgPoolCheckTimeout 60s
<PgPool default>
  PgPoolMax 2
</PgPool>
<PgPool brief>
  PgPoolAcquireTimeout 300ms
</PgPool>
<PgPool other>
  PgPoolAcquireTimeout 300ms
</PgPool>
SendBufferSize 4096
MaxKeepAliveRequests 0
$h2
$sections
CONF
for my $top ('', '/response') {
    mkdir $httpd->dir . "/htdocs$top";
    $httpd->put_file("$top/page.shtml",
        "1 <!--#include virtual=\"$top/number\" -->\n2 <!--#include virtual=\"$top/number?\" -->\n" .
        "3 <!--#include virtual=\"$top/probe?acquire&sql=SELECT+42\" -->\n");
}
$httpd->start;

sub at {
    my ($top, @command) = @_;
    return $top . probe_at(@command);
}

sub served {
    my ($pool) = @_;
    return told($httpd->get(at('', "acquire=$pool", 'sql=SELECT 42')), 'value');
}

# A client that has read nothing yet although the answer has begun.
sub slow_reader {
    my ($path) = @_;
    my $pending = $httpd->begin($path, rcvbuf => 4096);
    IO::Select->new($pending->{socket})->can_read(60) or die "no answer to $path\n";
    return $pending;
}

# httpd writes this line when the request's memory is freed.
sub logged {
    my ($path) = @_;
    return scalar(() = $httpd->access_log =~ /"GET \Q$path\E HTTP/g);
}

# ---- the handler has finished

subtest 'a slow reader of a small response' => sub {
    for my $top ('', '/response') {
        my $path = at($top, qw(acquire=brief acquire=other write=60000));
        my $slow = slow_reader($path);
        is_deeply [map { served($_) } qw(brief other)], [42, 42],
            ($top || 'request') . ': others are served, of each pool';
        is logged($path), 0, '... while that request is still there';
        like $slow->finish->{content}, qr/write=60000\n\z/, '... and its reader gets all of it';
    }
};

subtest 'eight slow readers' => sub {
    my %path = (
        'small responses, nothing released' => at('', qw(acquire=default write=60000)),
        'responses of 4 MB'                 => '/large',
        '... deflated'                      => '/deflated',
    );
    for my $name (sort keys %path) {
        my @slow = map { slow_reader($path{$name}) } 1 .. 8;
        my $before = logged($path{$name});
        my @others = map { $httpd->get('/number')->{status} } 1 .. 10;
        is_deeply \@others, [(200) x 10], "$name: 10 of 10 others are served";
        is logged($path{$name}), $before, '... while all eight are still there';
        is_deeply [map { $_->{status} } Pending::finish(@slow)], [(200) x 8], '... and get their responses';
    }
};

# ---- the response has ended

subtest 'a handler that goes on after its response' => sub {
    my $held = hold($httpd, 'acquire=brief', 'write=10', 'eos', 'gate');
    is served('brief'), undef, 'request: it keeps its connection';
    let_go($held);
    is served('brief'), 42, '... until it has finished';

    my %gate = map { $_ => $httpd->dir . "/$_" } qw(reached open);
    my $pending = $httpd->begin(at('/response', 'acquire=brief', 'write=10', 'eos',
        "touch=$gate{reached}", "hold=$gate{open}", 'acquire=brief', "touch=$gate{reached}2", "hold=$gate{open}2"));
    ok poll_until { -e $gate{reached} }, 'response: it goes on';
    is served('brief'), 42, '... without its connection';
    Httpd::spew($gate{open}, '');
    ok poll_until { -e "$gate{reached}2" }, '... acquires another';
    is served('brief'), undef, '... and has it';
    Httpd::spew("$gate{open}2", '');
    $pending->finish;
    is served('brief'), 42, '... until it has finished';
};

# A request that waits at its gate: after these commands, or at the command `gate` of a URI among
# them.
my $gates = 0;

sub hold_at {
    my ($top, @command) = @_;
    my $gate = $httpd->dir . '/at' . ++$gates;
    my $stop = "touch=$gate.reached&hold=$gate.open";
    my $path = at($top, @command);
    $path .= "&$stop" if $path !~ s/%26gate/'%26' . $stop =~ s{&}{%26}gr/e;
    return reach({ gate => $gate, pending => $httpd->begin($path) });
}

subtest 'events that do not end the response' => sub {
    my @cases = (
        ['a flush'                  => 'write=10', 'flush'],
        ['the end of a subrequest'  => 'subreq=' . at('/response', 'acquire=brief', 'write=10')],
        ['... that goes on'         => 'subreq=' . at('/response', 'acquire=brief', 'eos')],
        ['the beginning of another' => 'redirect=' . at('/response', 'acquire=brief', 'write=10', 'gate')],
    );
    for (@cases) {
        my ($name, @command) = @$_;
        my $held = hold_at('/response', 'acquire=brief', @command);
        is served('brief'), undef, "$name leaves the request its connection";
        is let_go($held)->{status}, 200, '... which goes on with it';
        is served('brief'), 42, '... and gives it back';
    }
};

subtest 'sections that differ, in one request' => sub {
    my $held = hold_at('/response', 'subreq=' . at('/response', 'acquire=brief'), 'write=10', 'eos');
    is served('brief'), 42, "response: a subrequest's connection goes back with its main request's";
    let_go($held);
    $held = hold_at('', 'acquire=brief', 'subreq=' . at('/response', 'acquire=default'), 'write=10', 'eos');
    is served('brief'), undef, '... but not the connection of a section with PgPoolRelease request';
    let_go($held);
    for my $before (['acquire=brief', 'release=brief'], ['acquire=brief']) {
        $held = hold_at('/response', @$before, 'redirect=' . at('', 'acquire=brief', 'write=10', 'eos', 'gate'));
        is served('brief'), undef, '... also if a section with response had it before';
        let_go($held);
    }
};

# ---- never lost, never twice

# The leases and the returns in the log since then, as soon as they are equally many.
sub leases {
    my ($from) = @_;
    my (@lent, @returned);
    poll_until {
        my $log = $httpd->error_log($from);
        @lent     = map { s/lent, //r } $log =~ /pool (\S+ backend \d+: lent, lease \d+)/g;
        @returned = map { s/returned, //r } $log =~ /pool (\S+ backend \d+: returned, lease \d+)/g;
        @lent == @returned;
    };
    return (\@lent, \@returned);
}

sub all_came_back {
    my ($from, $least) = @_;
    my ($lent, $returned) = map { [sort @$_] } leases($from);
    is_deeply $returned, $lent, '... each lent connection came back, once';
    cmp_ok @$lent, '>=', $least, '... and there were enough leases';
    my @held = map { hold($httpd, 'acquire=default') } 1 .. 2;
    is_deeply [map { told($_, 'status') } let_go(@held)], [0, 0], '... all connections are lent again';
    my $busy = q(SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend' AND state <> 'idle'
        AND pid <> pg_backend_pid());
    ok poll_until { query($pg, $busy) == 0 }, '... and are idle';
    return;
}

# Path, headers, status, pattern of the body.
sub kinds {
    my ($top) = @_;
    my $row = qr/\A\[\{"n":42,"pid":\d+\}\]\z/;
    return (
        ["$top/number" => {}, 200, $row],
        [at($top, 'acquire', 'sql=SELECT 42') => {}, 200, qr/^value=42$/m],
        [at($top, 'acquire', 'write=100000') => {}, 200, qr/^write=100000$/m],
        [at($top, 'acquire', 'sql=BEGIN', "redirect=$top/number") => {}, 200, qr/"n":42/],
        [at($top, 'acquire', "subreq=$top/number", 'again') => {}, 200, qr/^same=1$/m],
        [at($top, 'acquire', 'release', 'acquire', 'eos', 'acquire') => {}, 200, qr/^released=$/m],
        [at($top, 'acquire', 'fail=500') => {}, 500, qr/Internal Server Error/],
        ["$top/page.shtml" => {}, 200, qr/1 \[.*"pid":(\d+).*2 \[.*"pid":\1\b.*^3 .*^pid=\1$/ms],
        ["$top/missing" => {}, 404, $row],
        ["$top/medium" => {}, 200, qr/\A\[.*\]\z/s],
        ["$top/deflated" => { 'Accept-Encoding' => 'gzip' }, 200, qr/\A\x1F\x8B/],
        ["$top/number" => { Range => 'bytes=0-7' }, 206, qr/\A\[\{"n":42\z/],
        ["$top/medium" => { Range => 'bytes=100-199,4000-4099' }, 206, qr/^Content-range: bytes 4000-4099/im],
    );
}

sub each_kind {
    my ($client, $top, $times) = @_;
    my %wrong;
    for my $kind ((kinds($top)) x $times) {
        my ($path, $header, $status, $body) = @$kind;
        my $got = $client->get($httpd->url($path), { headers => $header });
        $wrong{"$path: $got->{status}"}++ if $got->{status} != $status || $got->{content} !~ $body;
        $wrong{"HEAD $path"}++ if $client->head($httpd->url($path), { headers => $header })->{content};
    }
    return \%wrong;
}

# The paths that need no headers and do not end the connection.
sub plain_paths {
    my ($top) = @_;
    my @path = map { $_->[0] } grep { !%{ $_->[1] } && $_->[2] != 500 } kinds($top);
    return @path;
}

# Send many requests at once, on one connection.  Returns their number and that of the answers.
sub pipelined {
    my ($top) = @_;
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1:' . $httpd->port) or die "connect: $!";
    my @path = plain_paths($top);
    my @request = map { "GET $_ HTTP/1.1\r\nHost: x\r\n\r\n" } @path, @path;
    $request[-1] =~ s/\r\n\z/Connection: close\r\n\r\n/;
    print {$socket} @request;
    my $text = do { local $/; <$socket> };
    return (scalar @request, scalar(() = $text =~ m{HTTP/1\.1 \d\d\d }g));
}

for my $top ('', '/response') {
    my $when = $top ? 'response' : 'request';
    subtest "HTTP/1.1, $when" => sub {
        my $from = $httpd->log_end;
        my $wrong = crowd(4, sub { my ($client) = @_; return each_kind($client, $top, 3) });
        is_deeply $wrong, {}, 'kept-alive connections, all kinds of responses';
        all_came_back($from, 4 * 3 * 2 * plain_paths($top));
    };
    subtest "HTTP/1.1 pipelined, $when" => sub {
        my $from = $httpd->log_end;
        my ($asked, $answered) = pipelined($top);
        is $answered, $asked, 'as many answers';
        all_came_back($from, $asked);
    };
    subtest "HTTP/2, $when" => sub {
        plan skip_all => 'no mod_http2 or nghttp2-client' if !$has_h2;
        my $from = $httpd->log_end;
        my @url = map { "'" . $httpd->url($_) . "'" } plain_paths($top);
        my $output = qx{h2load -n 300 -c 3 -m 8 @url 2>&1};
        like $output, qr/requests: 300 total, 300 started, 300 done/, 'all are answered' or diag $output;
        like $output, qr/, 0 errored, 0 timeout/, '... and none by an error';
        all_came_back($from, 300);
    };
}

# ---- readers that go

subtest 'clients that go away' => sub {
    my $from = $httpd->log_end;
    my @path = (at('', qw(acquire write=60000)), at('', qw(acquire write=10000000)), at('/response', qw(acquire write=60000)),
        '/large', '/deflated', '/page.shtml', at('', 'acquire', 'sql=BEGIN', 'sql=SELECT 1', 'abort'));
    for my $path ((@path) x 2) {
        my $reading = slow_reader($path);
        $reading->abandon;
        $httpd->begin($path)->abandon;
    }
    ok poll_until { my ($lent) = leases($from); @$lent >= 4 * @path }, 'each request has had its connection';
    all_came_back($from, 4 * @path);
};

# Nobody reads the pipe into which nghttp writes, so nghttp stops reading.
sub nghttp {
    my ($path, @option) = @_;
    pipe my $output, my $write or die "pipe: $!";
    # F_SETPIPE_SZ
    fcntl $write, 1031, 4096 or die "pipe: $!";
    my $pid = fork // die "fork: $!";
    if (!$pid) {
        open STDOUT, '>&', $write or die "dup: $!";
        exec 'nghttp', @option, $httpd->url($path) or POSIX::_exit(127);
    }
    return { pid => $pid, output => $output };
}

subtest 'HTTP/2: slow readers, and those that go away' => sub {
    plan skip_all => 'no mod_http2 or nghttp2-client' if !$has_h2;
    my $from = $httpd->log_end;
    # A handler that writes more than mod_http2 takes in for a stream (H2StreamMaxMemSize, 32 kB) may
    # have to wait for the reader before it has finished.
    for my $path (at('', qw(acquire=brief write=20000)), '/large') {
        my @slow = map { nghttp($path, '-w', 10, '-W', 10) } 1 .. 2;
        IO::Select->new($_->{output})->can_read(60) or die "no answer to $path\n" for @slow;
        is served('brief'), 42, "$path: another is served";
        is $httpd->get('/number')->{status}, 200, '... of each pool';
        kill KILL => map { $_->{pid} } @slow;
        waitpid $_->{pid}, 0 for @slow;
    }
    all_came_back($from, 4);
};

done_testing;
