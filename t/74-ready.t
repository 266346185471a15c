#!/usr/bin/perl

# SetHandler pgpool-ready, and %{pgpool:NAME}: they tell the state of all children together, no
# details, and need no connection.

use PgPoolTest;
use Probe;

my $pg = postgres;

my $conf = <<"CONF";
PgPoolConninfo "@{[conninfo($pg, application_name => 'main')]} password=sesame"
PgPoolMin 1
PgPoolMax 1
PgPoolRetry 50ms 200ms
PgPoolAcquireTimeout 20s
<PgPool idle>
  PgPoolMin 0
</PgPool>
<PgPool nobody>
  PgPoolConninfo "@{[conninfo($pg)]} user=nobody"
</PgPool>
<Location /ready>
  SetHandler pgpool-ready
</Location>
<Location /ready-nobody>
  PgPoolUse nobody
  SetHandler pgpool-ready
</Location>
<Location /down>
  Require expr %{pgpool:default} in { 'down', 'unknown' }
</Location>
LogFormat "%P %>s" child
CustomLog "\${DIR}/children" child "expr=%{REQUEST_URI} == '/ready'"
CONF

# The statuses that each child has answered, by its pid, to 32 requests at the same time.
sub answers_by_child {
    my ($httpd) = @_;
    my $log = $httpd->dir . '/children';
    my $from = -s $log // 0;
    $httpd->get_parallel(32, '/ready');
    my %answers;
    poll_until {
        my @line = split /\n/, substr Httpd::slurp($log), $from;
        %answers = ();
        $answers{ (split)[0] }{ (split)[1] } = 1 for @line;
        @line >= 32;
    };
    return \%answers;
}

sub all_children_answer {
    my ($httpd, $children, $status) = @_;
    my %seen;
    return poll_until {
        my $answers = answers_by_child($httpd);
        my @wrong = grep { join(' ', keys %$_) ne $status } values %$answers;
        %seen = @wrong ? () : (%seen, map { $_ => 1 } keys %$answers);
        keys %seen == $children;
    } 60;
}

subtest 'four children follow the server down and up' => sub {
    my $httpd = probed($conf, children => 4, modules => ['authz_core']);
    ok all_children_answer($httpd, 4, 200), 'each child: ready';
    is $httpd->get('/ready')->{content}, "ready\n", 'in one word';
    is $httpd->get('/down')->{status}, 403, '%{pgpool:default} is not down';
    $pg->stop('immediate');
    ok all_children_answer($httpd, 4, 503), 'the server has gone, each child: not ready';
    my $answer = $httpd->get('/ready');
    is $answer->{content}, "down\n", '... down, and no detail';
    is $answer->{headers}{'cache-control'}, 'no-store', '... Cache-Control: no-store';
    isnt $httpd->get('/down')->{status}, 403, '%{pgpool:default} is down';
    $pg->start;
    ok all_children_answer($httpd, 4, 200), 'the server is back, each child: ready';
    $httpd->stop;
};

subtest 'which pool, and headroom' => sub {
    my $httpd = probed($conf);
    ok poll_until { $httpd->get('/ready-nobody')->{content} eq "down\n" }, 'the pool of PgPoolUse';
    is $httpd->get('/ready')->{content}, "ready\n", '... is not the default pool';
    is $httpd->get('/ready?pool=nobody')->{status}, 503, '?pool=';
    is $httpd->get('/ready?pool=none')->{status}, 404, '... with an unknown name';
    is $httpd->get('/ready?pool=')->{status}, 404, '... with an empty name';
    is $httpd->request(HEAD => '/ready')->{status}, 200, 'HEAD';
    is $httpd->post('/ready', '')->{status}, 405, 'no POST';
    my $held = hold($httpd, qw(acquire gate));
    my $waiting = start_probe($httpd, qw(acquire gate));
    ok poll_until { $httpd->get('/ready?headroom')->{content} eq "exhausted\n" }, 'exhausted: no headroom';
    is $httpd->get('/ready?headroom')->{status}, 503, '... 503';
    is $httpd->get('/ready')->{content}, "ready\n", '... but ready';
    let_go($held, $waiting);
    ok poll_until { $httpd->get('/ready?headroom')->{status} == 200 }, 'free again: headroom';
    $httpd->stop;
};

subtest 'it borrows no connection' => sub {
    my $httpd = probed($conf);
    ok poll_until { $httpd->get('/ready?pool=idle')->{content} eq "ready\n" }, 'a pool without a connection is ready';
    is $httpd->get("/ready?pool=idle")->{status}, 200 for 1 .. 20;
    is backends($pg, 'main'), 1, 'only the default pool has one';
    $httpd->stop;
};

done_testing;
