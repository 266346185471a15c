# The pool cancels a statement at its deadline (PgPoolStatementTimeout), and when its client hangs
# up (PgPoolAbort) over HTTP/1.1, TLS and HTTP/2.

use PgPoolTest;
use JSON::PP;
use Poll;
use POSIX ();
use Probe;

my $pg = postgres();
my $conninfo = conninfo($pg, application_name => 'abort');
my ($mpm) = Httpd::mpms();
my $has_h2 = $mpm ne 'prefork' && Httpd::has_module('http2') && qx(curl --version) =~ /HTTP2/;
my $has_tls = Httpd::has_module('ssl');
my $clients = 8;

sub running {
    return query($pg, q{SELECT count(*) FROM pg_stat_activity
                        WHERE application_name = 'abort' AND state = 'active'});
}

my $tls_port = Httpd::free_port();
my $dir = File::Temp->newdir('abort-XXXXXX', DIR => $ENV{TESTDIR});
if ($has_tls) {
    system("openssl req -new -x509 -days 2 -nodes -subj /CN=127.0.0.1 -out $dir/crt -keyout $dir/key 2>/dev/null") == 0
        or die 'no certificate';
}
my $tls = $has_tls ? <<"CONF" : '';
Listen 127.0.0.1:$tls_port
<VirtualHost 127.0.0.1:$tls_port>
  SSLEngine on
  SSLCertificateFile $dir/crt
  SSLCertificateKeyFile $dir/key
</VirtualHost>
CONF

my $h2c = $has_h2 ? 'Protocols h2c http/1.1' : '';
my $httpd = probed(<<"CONF", threads => 2 * $clients, modules => [$has_h2 ? 'http2' : (), $has_tls ? 'ssl' : ()]);
PgPoolConninfo "$conninfo"
PgPoolMin $clients
PgPoolMax $clients
PgPoolCheckTimeout 30s
$h2c
$tls
<Location /deadline>
  SetHandler pgpool-probe
  PgPoolStatementTimeout 100ms
</Location>
<Location /status>
  SetHandler pgpool-status
</Location>
ErrorDocument 500 http://127.0.0.1/document
<Location /ignore>
  SetHandler pgpool-probe
  PgPoolAbort ignore
</Location>
CONF

sub cancels { return decode_json($httpd->get('/status?json')->{content})->{pools}{default}{cancels} }

sub at { my ($top, @command) = @_; return probe_at(@command) =~ s{^/probe}{$top}r }

subtest 'past the deadline' => sub {
    my $sleep = 'query=SELECT pg_sleep(60)';
    my $answer = $httpd->get(at('/deadline', $sleep, 'query=SELECT 1'));
    tells $answer, { status => ['ETIMEDOUT', 0], value => 1 }, 'another connection serves the next statement';
    is $httpd->get(at('/deadline', $sleep, 'httpstatus'))->{status}, 504, 'is 504';
    tells $httpd->get(at('/deadline', 'rows=SELECT pg_sleep(60)')), { status => 'ETIMEDOUT' }, 'likewise by rows';
    tells $httpd->get(at('/deadline', 'acquire', 'sql=BEGIN', $sleep, 'again', 'again')),
        { status => [0, 'ETIMEDOUT'], again => ['ELOST', 0] }, 'a transaction is lost with it';
    tells $httpd->get(at('/deadline', 'acquire', $sleep, 'again')),
        { status => [0, 'ETIMEDOUT'], again => 'ELOST' }, 'so is a connection that the handler has acquired';
    ok poll_until { running() == 0 }, 'no statement runs any more';
    ok poll_until { cancels()->{deadline} == 5 }, 'the cancels are counted' or diag explain cancels();
    like $httpd->error_log, qr/pgpool:error.*PGP1020: .*PgPoolStatementTimeout \(100 ms\): it is cancelled; .*pg_sleep/,
        'the log has the cause';
};

# ---- hang-ups

sub curl {
    my (@argument) = @_;
    my $pid = fork // die "fork: $!";
    return $pid if $pid;
    open STDOUT, '>', '/dev/null';
    open STDERR, '>', '/dev/null';
    exec 'curl', '-sk', @argument or POSIX::_exit(127);
}

sub hang_up {
    my @pid = @_;
    kill KILL => @pid;
    waitpid $_, 0 for @pid;
    return;
}

my $path = probe_at('query=SELECT pg_sleep(30)', 'httpstatus');
my %protocol = (
    'HTTP/1.1' => [$httpd->url($path)],
    $has_tls ? (TLS => ["https://127.0.0.1:$tls_port$path"]) : (),
    $has_h2 ? ('HTTP/2' => ['--http2-prior-knowledge', $httpd->url($path)]) : (),
);
my $rounds = $ENV{PGPOOL_ROUNDS} // 3;

for my $protocol (sort keys %protocol) {
    subtest "clients hang up, $protocol" => sub {
        my $counted = cancels()->{'hang-up'};
        my $wrong = 0;
        for (1 .. $rounds) {
            my @client = map { curl(@{ $protocol{$protocol} }) } 1 .. $clients;
            poll_until { running() == $clients } or $wrong++;
            hang_up(@client);
            poll_until { running() == 0 } or $wrong++;
            # Each connection serves another statement, and no late cancel hits that.
            my @next = map { $httpd->begin(probe_at('query=SELECT pg_sleep(0.05), 7 AS n')) } 1 .. $clients;
            $_->{content} =~ /^status=0$/m or $wrong++ for finish(@next);
        }
        is $wrong, 0, 'their statements end, and no other';
        my $gone = sub { scalar(() = $httpd->access_log =~ /^"GET \S+ HTTP\/\S+" 499 /mg) };
        ok poll_until { $gone->() >= $rounds * $clients }, 'the access log shows 499, in spite of ErrorDocument 500';
        ok poll_until { cancels()->{'hang-up'} - $counted >= $rounds * $clients }, 'the cancels are counted'
            or diag explain cancels();
        like $httpd->error_log, qr/pgpool:info.*PGP1020: .*the client has gone/, 'the log has the cause';
        Httpd::spew($httpd->dir . '/access_log', '');
    };
}

subtest 'while rows come without a pause' => sub {
    my $client = curl($httpd->url(probe_at('rows=SELECT generate_series(1, 1000000000)')));
    ok poll_until { running() == 1 }, 'a statement runs';
    hang_up($client);
    ok poll_until { running() == 0 }, 'and ends with its client';
};

subtest 'PgPoolAbort ignore' => sub {
    my $touched = $httpd->dir . '/touched';
    my $client = curl($httpd->url(at('/ignore', 'query=SELECT pg_sleep(0.5)', "touch=$touched", 'query=SELECT 1')));
    ok poll_until { running() == 1 }, 'a statement runs';
    hang_up($client);
    ok poll_until { -e $touched }, 'and runs to its end';
};

subtest 'a second request that is sent ahead' => sub {
    my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1', PeerPort => $httpd->port) or die "connect: $!";
    my $request = 'GET ' . probe_at('query=SELECT pg_sleep(0.2), 7 AS n') . " HTTP/1.1\r\nHost: x\r\n";
    print {$socket} "$request\r\n${request}Connection: close\r\n\r\n";
    my $text = do { local $/; <$socket> };
    is scalar(() = $text =~ /^status=0$/mg), 2, 'is no hang-up';
};

$httpd->stop;
done_testing;
