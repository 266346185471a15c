# PgBouncer between the pool and the server, in the modes session and transaction (the latter with
# PgPoolReset transaction).

use PgPoolTest;
use Bouncer;
use Probe;

my $pg = postgres;
query($pg, 'CREATE TABLE note (text text)');

# How many backends run the statements that the tests leave running.
sub asleep {
    return query($pg, q{SELECT count(*) FROM pg_stat_activity
                         WHERE state = 'active' AND query LIKE 'SELECT pg_sleep%'});
}

sub served {
    my ($httpd, $name) = @_;
    my $answer = probe($httpd, 'acquire', 'sql=SELECT 42', 'state');
    return tells $answer, { status => 0, value => 42, tx => 'IDLE' }, $name;
}

# Tests for both modes.  The pool has one connection, which serves all of them.
sub basics {
    my ($httpd) = @_;
    query($pg, 'TRUNCATE note');
    tells probe($httpd, 'acquire', 'sql=SELECT 1', 'again', 'sql=SELECT 2'),
        { status => 0, value => [1, 2], again => 0, same => 1 }, 'one connection for the request';

    probe($httpd, 'acquire', 'sql=BEGIN', q{sql=INSERT INTO note VALUES ('kept')}, 'sql=COMMIT');
    is query($pg, 'SELECT text FROM note'), 'kept', 'a transaction';
    probe($httpd, 'acquire', 'sql=BEGIN', q{sql=INSERT INTO note VALUES ('lost')});
    served($httpd, 'an open transaction is ended');
    is query($pg, 'SELECT text FROM note'), 'kept', '... and rolled back';
    probe($httpd, 'acquire', 'sql=BEGIN', 'sql=SELECT 1/0');
    served($httpd, 'a failed transaction is ended');

    my $from = $httpd->log_end;
    tells probe($httpd, 'acquire', 'send=SELECT pg_sleep(60)'), { sent => 1 }, 'a query is left running';
    served($httpd, '... the next request is served');
    is asleep(), 0, '... and the server has ended the statement';
    unlike $httpd->error_log($from), qr/PGP1003/, '... over the same connection';
    return;
}

sub losses {
    my ($httpd, $bouncer) = @_;
    kill_backends($pg);
    ok poll_until { probe($httpd, 'acquire', 'sql=SELECT 42')->{content} =~ /^value=42$/m },
        'served after the backends were killed';
    served($httpd, '... from then on') for 1 .. 5;

    $bouncer->kill;
    my $waits = start_probe($httpd, 'acquire', 'sql=SELECT 43');
    $httpd->wait_log(qr/PGP1002/);
    $bouncer->start;
    tells let_go($waits), { status => 0, value => 43 }, 'a request waits for the end of a restart of PgBouncer';
    served($httpd, '... from then on') for 1 .. 5;
    return;
}

sub through {
    my ($bouncer, $reset) = @_;
    return probed(<<"CONF");
PgPoolConninfo "@{[$bouncer->conninfo]}"
PgPoolReset $reset
PgPoolMin 1
PgPoolMax 1
PgPoolAcquireTimeout 30s
CONF
}

subtest 'session pooling' => sub {
    my $bouncer = Bouncer->new($pg, 'session');
    my $httpd = through($bouncer, 'session');
    basics($httpd);
    my $before = told(probe($httpd, 'acquire', 'sql=SHOW work_mem'), 'value');
    probe($httpd, 'acquire', 'sql=SET work_mem = 1234', 'sql=PREPARE mine AS SELECT 1');
    tells probe($httpd, 'acquire', 'sql=SHOW work_mem'), { value => $before }, 'settings are undone';
    losses($httpd, $bouncer);
    $httpd->stop;
    $bouncer->kill;
};

subtest 'transaction pooling' => sub {
    my $bouncer = Bouncer->new($pg, 'transaction');
    my $httpd = through($bouncer, 'transaction');
    basics($httpd);
    losses($httpd, $bouncer);
    $httpd->stop;
    $bouncer->kill;
};

# PgBouncer logs in with a role of its own choice; libpq knows another name.
subtest 'a user of PgBouncer\'s choice' => sub {
    query($pg, $_) for 'CREATE ROLE app LOGIN', 'CREATE ROLE alice', 'GRANT alice TO app';
    my $bouncer = Bouncer->new($pg, 'session', database => 'user=app');
    my $httpd = probed(<<"CONF");
PgPoolConninfo "@{[$bouncer->conninfo]}"
<Location /probe>
  PgPoolSet role "%{HTTP:X-Role}"
</Location>
CONF
    my $path = probe_at('acquire', 'sql=SELECT current_user');
    tells $httpd->get($path, { headers => { 'X-Role' => 'alice' } }), { status => 0, value => 'alice' }, 'may take a role';
    tells $httpd->get($path, { headers => { 'X-Role' => 'app' } }), { status => 'EUNAVAIL' }, '... but not its own';
    like $httpd->error_log, qr/PGP1015: .*role: "app" is the pool's own role/, '... the log says why';
    $httpd->stop;
    $bouncer->kill;
};

# The configuration of both sides that the README recommends if many more processes are busy than
# there are connections.
subtest 'as the README has it' => sub {
    my $readme = Httpd::slurp('README.md');
    my ($section) = $readme =~ /^\*\*PgBouncer\.\*\*(.*?)(?=^\*\*|^## )/ms;
    my %bouncer = $section =~ /^    (\w+) = (\w+)$/mg;
    my @pool = $section =~ /^    (PgPool.*)$/mg;
    is_deeply [sort keys %bouncer], [qw(default_pool_size max_client_conn pool_mode)],
        'the settings of PgBouncer';
    my $bouncer = Bouncer->new($pg, delete $bouncer{pool_mode}, %bouncer);
    s/host=\S+ port=\S+/host=127.0.0.1 port=@{[$bouncer->port]}/ for @pool;
    my $httpd = probed(join "\n", @pool, '');
    my @waiting = map { start_probe($httpd, 'acquire', "sql=SELECT $_ FROM pg_sleep(0.1)") } 1 .. 6;
    tells let_go($waiting[$_ - 1]), { status => 0, value => $_ }, "request $_ is served" for 1 .. 6;
    $httpd->stop;
    $bouncer->kill;
};

ok poll_until { backends($pg) == 0 }, 'no backend is left';

done_testing;
