# Failover: the connection string names two servers, a primary with a streaming standby.  Service
# follows the primary by itself, and a connection whose server has changed its role is not lent
# again.

use PgPoolTest;
use FaultProxy;
use Probe;

my $slack = 5;

my $one = PostgreSQL::Test::Cluster->new('one');
$one->init(allows_streaming => 1, extra => \@PgPoolTest::UTF8);
$one->start;
my $two = standby_of($one, 'two');
query($one, 'CREATE TABLE note (text text)');

# Each standby is made from a backup of its own.
sub standby_of {
    my ($primary, $name) = @_;
    $primary->backup("for_$name");
    my $node = PostgreSQL::Test::Cluster->new($name);
    $node->init_from_backup($primary, "for_$name", has_streaming => 1);
    $node->start;
    return $node;
}

# A connection string with these servers in this order; a server is a node, or a proxy to one.
sub both {
    my ($attrs, @server) = @_;
    my $hosts = join ',', map { $_->isa('FaultProxy') ? '127.0.0.1' : $_->host } @server;
    my $ports = join ',', map { $_->port } @server;
    return "host=$hosts port=$ports dbname=postgres target_session_attrs=$attrs";
}

sub where {
    my ($httpd, @pool) = @_;
    return told(probe($httpd, join('=', 'acquire', @pool), 'sql=SHOW port'), 'value') // '';
}

sub served_by {
    my ($httpd, $node, $name, @pool) = @_;
    my $there = poll_until { where($httpd, @pool) eq $node->port };
    ok $there, $name;
    return;
}

# Attempts that began at the same time fail together and count as one: the next attempt begins with
# the second host, whether their number was odd or even.  On a busy machine an attempt at the second
# host may take longer than a second; one that timed out would send the next to the hole again.
subtest 'a black hole first' => sub {
    my $hole = FaultProxy->new($one);
    my $conninfo = both('read-write', $hole, $one);
    for my $clients (1, 2, 4) {
        $hole->mode('hole');
        my $before = $hole->accepted;
        my $httpd = probed(<<"CONF");
PgPoolConninfo "$conninfo"
PgPoolMin 0
PgPoolMax 8
PgPoolConnectTimeout 3s
PgPoolAcquireTimeout 60s
PgPoolRetry 10ms 20ms
CONF
        my @waits = map { start_probe($httpd, qw(acquire gate)) } 1 .. $clients;
        reach($_) for @waits;
        cmp_ok $hole->accepted - $before, '<=', $clients, "$clients served by the second attempt";
        my $after = $hole->accepted;
        my @more = map { hold($httpd, qw(acquire gate)) } 1 .. 3;
        is $hole->accepted, $after, '... and later requests by the first';
        is_deeply [map { told($_, 'status') } let_go(@waits, @more)], [(0) x ($clients + 3)], '... all';
        $httpd->stop;
    }
};

subtest 'the primary is lost, the standby promoted' => sub {
    my $conninfo = both('read-write', $one, $two);
    my $primary = both('primary', $one, $two);
    my $httpd = probed(<<"CONF");
PgPoolConninfo "$conninfo"
PgPoolMin 2
PgPoolMax 6
PgPoolRetry 50ms 500ms
PgPoolAcquireTimeout 1s
<PgPool primary>
  PgPoolConninfo "$primary"
</PgPool>
CONF
    served_by($httpd, $one, 'the primary serves');
    served_by($httpd, $one, '... also with target_session_attrs=primary', 'primary');
    my $load = $httpd->load(probe_at('acquire', q{sql=INSERT INTO note VALUES ('x')}, 'httpstatus'),
        clients => 4, record => 1, pause => 0.01);
    ok poll_until { query($one, 'SELECT count(*) FROM note') > 20 }, 'writers write';
    $one->wait_for_catchup('two');
    $one->stop('immediate');
    $two->promote;
    my $promoted = now();
    served_by($httpd, $two, 'the new primary serves, by itself');
    cmp_ok now() - $promoted, '<', 1 + $slack, '... soon';
    my $back = now();
    served_by($httpd, $two, '... also with target_session_attrs=primary', 'primary');
    my $before = query($two, 'SELECT count(*) FROM note');
    ok poll_until { query($two, 'SELECT count(*) FROM note') > $before + 20 }, 'writers write again';
    my @answer = $load->finish;
    is_deeply [grep { $_->{status} != 200 && $_->{began} > $back } @answer], [], '... and none fails';
    $httpd->stop;
};

subtest 'a primary that becomes read-only' => sub {
    my $conninfo = both('read-write', $two);
    my $httpd = probed(<<"CONF");
PgPoolConninfo "$conninfo"
PgPoolMin 3
PgPoolMax 3
PgPoolRetry 10ms 50ms
PgPoolAcquireTimeout 500ms
<Location /probe/reader>
  PgPoolSet default_transaction_read_only on
</Location>
CONF
    my @held = map { hold($httpd, qw(acquire gate)) } 1 .. 3;
    let_go(@held);
    # A request may set default_transaction_read_only; that is no change of the server.
    tells $httpd->get('/probe/reader?acquire'), { status => 0 }, 'a request that only reads';
    read_only('on');
    # One request may notice the change by its own write.  The other connections are pinged then,
    # and the server reports its new state with the answer.
    my @told = map { probe($httpd, 'acquire', q{sql=INSERT INTO note VALUES ('y')}) } 1 .. 5;
    my $given = grep { told($_, 'status') eq '0' } @told;
    cmp_ok $given, '<=', 1, 'at most the first finds out by itself';
    is told($told[-1], 'status'), 'EUNAVAIL', '... then no connection is lent';
    read_only('off');
    my @write = ('acquire', q{sql=INSERT INTO note VALUES ('z')});
    ok poll_until { probe($httpd, @write)->{content} =~ /^result=PGRES_COMMAND_OK/m },
        'until the primary is writable again';
    $httpd->stop;
};

# Change the setting for new and open sessions, and wait until it is in force.
sub read_only {
    my ($value) = @_;
    query($two, "ALTER SYSTEM SET default_transaction_read_only = $value");
    $two->reload;
    my $known = poll_until { query($two, 'SHOW default_transaction_read_only') eq $value };
    die "no reload\n" if !$known;
    return;
}

subtest 'a standby that is promoted' => sub {
    my $three = standby_of($two, 'three');
    my $far = FaultProxy->new($three);
    my $conninfo = both('standby', $far);
    my $prefer = both('prefer-standby', $three, $two);
    my $httpd = probed(<<"CONF");
PgPoolConninfo "$conninfo"
PgPoolMin 1
PgPoolMax 3
PgPoolPing 0
PgPoolRetry 10ms 50ms
PgPoolAcquireTimeout 500ms
<PgPool prefer>
  PgPoolConninfo "$prefer"
  PgPoolAcquireTimeout 60s
</PgPool>
CONF
    served_by($httpd, $three, 'the standby serves');
    served_by($httpd, $three, '... also with prefer-standby', 'prefer');
    $two->wait_for_catchup('three');
    $three->promote;
    is told(probe($httpd, 'acquire'), 'status'), 'EUNAVAIL',
        'no standby any more: its connections are not lent';
    like $httpd->error_log, qr/PGP1006: pool default, .*found unfit .* has changed its role/,
        '... the log says why';
    tells probe($httpd, 'acquire=prefer'), { status => 0 }, '... but prefer-standby is served';
    $httpd->stop;
    $three->stop;
};

# With mod_dbd itself look-ups would go on over dead connections.
subtest 'mod_pgpool_dbd' => sub {
    query($two, "CREATE TABLE place (name text, target text); INSERT INTO place VALUES ('home', '/home.txt')");
    my $four = standby_of($two, 'four');
    my $conninfo = both('read-write', $two, $four);
    my $httpd = httpd(<<"CONF", modules => [qw(pgpool pgpool_dbd rewrite)], children => 1);
DBDriver pgsql
DBDParams "$conninfo"
DBDMin 3
RewriteEngine on
RewriteMap place "dbd:SELECT target FROM place WHERE name = %s"
RewriteRule ^/go/(.*)\$ \${place:\$1|/missing} [L]
CONF
    $httpd->put_file('home.txt', "here\n");
    my $found = sub { return $httpd->get('/go/home')->{status} == 200 };
    ok $found->(), 'a key is found';
    $two->wait_for_catchup('four');
    $two->stop('immediate');
    $four->promote;
    ok poll_until { $found->() }, 'it is found at the new primary, by itself';
    is scalar(grep { $found->() } 1 .. 50), 50, '... and no look-up fails any more';
    $httpd->stop;
    $four->stop;
};

done_testing;
