# Faults of a network: silence, resets, half-closed connections, a resolver that hangs, a frozen
# server.  Every acquire ends by its deadline, all threads come back, and nothing fails after the
# fault.

use PgPoolTest;
use FaultProxy;
use Probe;
use List::Util qw(max);
use Time::HiRes qw(sleep);

# Seconds by which an answer may be late on a busy machine.
my $slack = 5;

my $pg = postgres;
my $proxy = FaultProxy->new($pg);

my $rows = <<'CONF';
<Location /rows>
  SetHandler pgpool-query
  PgPoolQuery "SELECT 1 AS one"
</Location>
CONF

# One child whose pools connect through the proxy.
sub proxied {
    my ($directives, %option) = @_;
    my $conninfo = conninfo($pg, via($proxy));
    return probed("PgPoolConninfo \"$conninfo\"\n$directives\n$rows", modules => ['pgpool_query'], %option);
}

# How often the log has a message since then.
sub told_in_log {
    my ($httpd, $from, $id) = @_;
    return scalar(() = $httpd->error_log($from) =~ /PGP$id:/g);
}

# Eight clients send requests before, during and after a fault that lasts some seconds.  Returns the
# time of the first success after it, and all answers.
sub under_load {
    my ($httpd, $fault, $heal, $seconds) = @_;
    my $load = $httpd->load('/rows', clients => 8, record => 1, pause => 0.01);
    poll_until { $httpd->get('/rows')->{status} == 200 } or die "no service to begin with\n";
    $fault->();
    sleep $seconds;
    $heal->();
    ok poll_until { $httpd->get('/rows')->{status} == 200 }, 'it heals by itself';
    my $healed = now();
    sleep 1;    # of load, to see that it stays so
    return ($healed, $load->finish);
}

# Test that all connections can be lent at once.
sub all_there {
    my ($httpd, $max) = @_;
    my @held = map { hold($httpd, qw(acquire gate)) } 1 .. $max;
    is_deeply [map { told($_, 'status') } let_go(@held)], [(0) x $max], 'all connections can be lent at once';
    return;
}

# During a silence the clients in the middle of a query cannot notice it; only they are answered
# late.
sub survives {
    my ($name, $fault, $heal, $seconds) = @_;
    subtest $name => sub {
        my $httpd = proxied("PgPoolMin 4\nPgPoolMax 6\nPgPoolConnectTimeout 2s\nPgPoolRetry 100ms 1s");
        my $from = $httpd->log_end;
        my ($healed, @answer) = under_load($httpd, $fault, $heal, $seconds);
        my @late = grep { $_->{seconds} > 2 + $slack } @answer;
        cmp_ok @late, '<=', 6, 'at most the requests whose query was under way are late';
        cmp_ok max(map { $_->{began} + $_->{seconds} } @answer), '<', $healed + 1 + $slack, 'all end';
        is_deeply [grep { $_->{status} != 200 && $_->{began} > $healed } @answer], [],
            'nothing fails once it has healed';
        cmp_ok told_in_log($httpd, $from, 1011), '>', 0, 'before that requests fail';
        my @refused = map { $_ / 1000 } $httpd->error_log($from) =~ /PGP1011: .*waited (\d+) ms/g;
        cmp_ok max(@refused), '<', 2 + $slack, 'every acquire ended by its deadline';
        note sprintf 'longest acquire %.3f s; %d answers, %d late', max(@refused), @answer + 0, @late + 0;
        all_there($httpd, 6);
        $httpd->stop;
    };
    return;
}

survives 'a black hole of 10 s', sub { $proxy->mode('hole') }, sub { $proxy->mode('pass') }, 10;
survives 'a server frozen for 12 s', sub { freeze($pg) }, sub { thaw($pg) }, 12;

subtest 'a storm of resets' => sub {
    my $httpd = proxied("PgPoolMin 4\nPgPoolMax 6\nPgPoolAcquireTimeout 20s");
    my $from = $httpd->log_end;
    my $load = $httpd->load('/rows', clients => 8, record => 1);
    for (1 .. 10) {
        sleep 0.5;
        $proxy->drop;
    }
    my @answer = $load->finish;
    my $failed = grep { $_->{status} != 200 } @answer;
    is $failed, told_in_log($httpd, $from, 1012), 'only requests in the middle of a query fail';
    is told_in_log($httpd, $from, 1011), 0, '... no acquire does';
    cmp_ok told_in_log($httpd, $from, 1001), '>', 10, '... and many connections were reset';
    note "$failed failed of ", scalar @answer;
    all_there($httpd, 6);
    $httpd->stop;
};

subtest 'half-closed' => sub {
    my $httpd = proxied("PgPoolMin 1\nPgPoolMax 1\nPgPoolReset transaction\nPgPoolPing off");
    my $pid = told(probe($httpd, 'acquire'), 'pid');
    is told(probe($httpd, 'acquire'), 'pid'), $pid, 'one connection';
    $proxy->half;
    my $answer = probe($httpd, qw(acquire), 'sql=SELECT 1');
    isnt told($answer, 'pid'), $pid, 'a connection that the server has ended is not lent';
    tells $answer, { status => 0, value => 1 }, '... and another serves';
    my $pinned = hold($httpd, qw(acquire gate again again));
    $proxy->half;
    tells let_go($pinned), { again => ['ELOST', 0] }, 'its borrower gets ELOST, even without a query';
    $httpd->stop;
};

subtest 'a server that accepts connections and sends nothing' => sub {
    my $direct = conninfo($pg);
    my $httpd = proxied(<<"CONF");
PgPoolMin 0
PgPoolConnectTimeout 300ms
PgPoolRetry 10ms 20ms
PgPoolAcquireTimeout 60s
<PgPool other>
  PgPoolConnectTimeout 5s
  PgPoolConninfo "$direct"
</PgPool>
CONF
    my $from = $httpd->log_end;
    my $before = $proxy->accepted;
    $proxy->mode('mute');
    my $waits = start_probe($httpd, qw(acquire), 'sql=SELECT 1');
    $httpd->wait_log(qr/PGP1002: pool default: .* PgPoolConnectTimeout \(300 ms\)/, from => $from);
    ok poll_until { $proxy->accepted >= $before + 3 }, 'PgPoolConnectTimeout ends attempts, and others follow';
    tells probe($httpd, 'acquire=other', 'sql=SELECT 2'), { status => 0, value => 2 }, 'others are served';
    $proxy->mode('pass');
    tells let_go($waits), { status => 0, value => 1 }, 'the acquire succeeds when the server answers';
    $httpd->stop;
};

subtest 'a slow network' => sub {
    my $httpd = proxied('PgPoolMin 1');
    $proxy->mode('slow=0.05');
    tells probe($httpd, 'acquire', 'sql=SELECT 1'), { status => 0, value => 1 }, 'serves' for 1 .. 3;
    $proxy->mode('pass');
    $httpd->stop;
};

subtest 'a resolver that hangs' => sub {
    my $direct = conninfo($pg);
    my $heals = "$ENV{TESTDIR}/resolver-heals";
    my $port = $proxy->port;
    my $httpd = probed(<<"CONF", preload => ['preload_lookup'], env => { LOOKUP_HANGS_UNTIL => $heals });
PgPoolRetry 10ms 20ms
PgPoolMin 1
PgPoolConninfo "$direct"
<PgPool lost>
  PgPoolConnectTimeout 300ms
  PgPoolConninfo "host=db.hang.test port=$port dbname=postgres"
  PgPoolAcquireTimeout 700ms
</PgPool>
CONF
    $httpd->wait_log(qr/PGP1002: pool lost: cannot connect: no answer .* PgPoolConnectTimeout/);
    pass 'PgPoolConnectTimeout ends the attempt';
    my $lost = $httpd->begin(probe_at('acquire=lost'));
    tells probe($httpd, 'acquire', 'sql=SELECT 1'), { status => 0, value => 1 }, 'other pools serve';
    my $answer = $lost->finish;
    tells $answer, { status => 'EUNAVAIL' }, 'this one does not';
    cmp_ok $answer->{seconds}, '<', 0.7 + $slack, '... and its request fails in time';
    Httpd::spew($heals, '');
    ok poll_until { probe($httpd, 'acquire=lost')->{content} =~ /^status=0/ }, 'until the resolver answers';
    unlink $heals;
    my $from = $httpd->log_end;
    kill_backends($pg);
    poll_until { backends($pg) == 0 } or die "they live on\n";
    # The request finds the dead connection, so the keeper connects, and looks the name up again.
    tells probe($httpd, 'acquire=lost'), { status => 'EUNAVAIL' }, 'and hangs again';
    $httpd->wait_log(qr/PGP1002: pool lost/, from => $from);
    $httpd->stop;
    pass 'httpd stops during the look-up';
    ok poll_until { backends($pg) == 0 }, '... and leaves no backend';
};

subtest 'options of the socket' => sub {
    my %ours = (keepalive => 1, idle => 5, interval => 2, count => 3, user_timeout => 10000);
    my @case = (
        ['the defaults', '', {}],
        ['all set', 'keepalives_idle=77 keepalives_interval=8 keepalives_count=9 tcp_user_timeout=1234',
            { idle => 77, interval => 8, count => 9, user_timeout => 1234 }],
        ['one set', 'tcp_user_timeout=0', { user_timeout => 0 }],
        # Without keepalives libpq does not set tcp_user_timeout either.
        ['no keepalives', 'keepalives=0', { keepalive => 0, user_timeout => 0 }],
    );
    my $conninfo = conninfo($pg, via($proxy));
    my @pool = map { "<PgPool p$_>\n  PgPoolConninfo \"$conninfo $case[$_][1]\"\n</PgPool>\n" } 0 .. $#case;
    my $httpd = probed(join '', @pool);
    for my $i (0 .. $#case) {
        my ($name, undef, $own) = @{ $case[$i] };
        my $answer = probe($httpd, "acquire=p$i", 'socket');
        my %want = (%ours, %$own);
        delete @want{qw(idle interval count)} if !$want{keepalive};
        tells $answer, \%want, $name;
    }
    $httpd->stop;
};

done_testing;
