# Failover: two servers in the connection string, a real streaming pair.  Service follows the primary
# by itself, and a connection whose server has changed its role is not given out again.

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

# Over both, in that order; a node is reached by its own name or through a proxy.
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

# Attempts that were begun at the same time fail at the same time; the next begins with the second
# host, whether their number was odd or even.
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
PgPoolConnectTimeout 1s
PgPoolAcquireTimeout 60s
PgPoolRetry 10ms 20ms
CONF
        my @waits = map { start_probe($httpd, qw(acquire gate)) } 1 .. $clients;
        reach($_) for @waits;
        cmp_ok $hole->accepted - $before, '<=', $clients, "$clients served by the second attempt";
        my $after = $hole->accepted;
        my @more = map { hold($httpd, qw(acquire gate)) } 1 .. 3;
        is $hole->accepted, $after, '... and those who come later by the first';
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
    served_by($httpd, $one, '... also whom only a primary will do', 'primary');
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
    served_by($httpd, $two, '... also whom only a primary will do', 'primary');
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
    # That a request wanted it so says nothing of the server, afterwards.
    tells $httpd->get('/probe/reader?acquire'), { status => 0 }, 'one that only reads';
    read_only('on');
    # One may hear of it by its own write; the others answer a ping then, and with it the server says
    # what it has become.
    my @told = map { probe($httpd, 'acquire', q{sql=INSERT INTO note VALUES ('y')}) } 1 .. 5;
    my $given = grep { told($_, 'status') eq '0' } @told;
    cmp_ok $given, '<=', 1, 'at most the first finds out by itself';
    is told($told[-1], 'status'), 'EUNAVAIL', '... then no connection is given out';
    read_only('off');
    my @write = ('acquire', q{sql=INSERT INTO note VALUES ('z')});
    ok poll_until { probe($httpd, @write)->{content} =~ /^result=PGRES_COMMAND_OK/m },
        'until it is what is wanted again';
    $httpd->stop;
};

# For new and open sessions; returns when both know.
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
    served_by($httpd, $three, '... also who would rather have one', 'prefer');
    $two->wait_for_catchup('three');
    $three->promote;
    is told(probe($httpd, 'acquire'), 'status'), 'EUNAVAIL',
        'a standby no more, its connections are given out no more';
    like $httpd->error_log, qr/PGP1006: pool default, .*found unfit .* has changed its role/,
        '... the log says why';
    tells probe($httpd, 'acquire=prefer'), { status => 0 }, '... but who would only rather have one is served';
    $httpd->stop;
    $three->stop;
};

# mod_dbd goes on with its dead connections.
subtest 'over the bridge' => sub {
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
