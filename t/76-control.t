#!/usr/bin/perl

# SetHandler pgpool-control: an operator suspends a pool, resumes it, or lets it reconnect, in all
# children; and refused orders.

use PgPoolTest;
use JSON::PP;
use Probe;

my $pg = postgres;
my $conninfo = conninfo($pg, application_name => 'steered');
my $httpd = probed(<<"CONF", children => 4, threads => 8);
PgPoolConninfo "$conninfo"
PgPoolMin 2
PgPoolMax 4
PgPoolAcquireTimeout 30s
<PgPool brief>
  PgPoolAcquireTimeout 100ms
</PgPool>
<Location /control>
  SetHandler pgpool-control
</Location>
<Location /ready>
  SetHandler pgpool-ready
</Location>
<Location /status>
  SetHandler pgpool-status
</Location>
CONF

sub nonce { return $httpd->get('/control?nonce')->{content} =~ s/\n\z//r }

# Send an order, with a nonce unless the form has one, and with these headers.
sub order {
    my ($form, %header) = @_;
    $form->{nonce} //= nonce();
    my $content = join '&', map { "$_=$form->{$_}" } sort keys %$form;
    return $httpd->request(POST => '/control', {
        content => $content,
        headers => { 'Content-Type' => 'application/x-www-form-urlencoded', %header } });
}

sub pool_json { return decode_json($httpd->get('/status?json')->{content})->{pools}{ $_[0] // 'default' } }

my $everywhere = sub { backends($pg, 'steered') >= 2 * 4 * 2 };

subtest 'refused orders' => sub {
    my %suspend = (action => 'suspend', pool => 'default');
    is $httpd->get('/control?action=suspend&pool=default')->{status}, 200, 'a GET is the page';
    is order({ %suspend, nonce => 'wrong' })->{status}, 403, 'a wrong nonce';
    is order({ %suspend, nonce => '' })->{status}, 403, 'no nonce';
    is order({%suspend}, Origin => 'http://elsewhere.example')->{status}, 403, 'a page of another host';
    is order({%suspend}, Origin => 'null')->{status}, 403, 'a page without a host';
    is $httpd->request(PUT => '/control')->{status}, 405, 'another method';
    is order({ %suspend, pool => 'none' })->{status}, 404, 'no such pool';
    is order({ %suspend, action => 'stop' })->{status}, 400, 'no such action';
    is order({ %suspend, for => $_ })->{status}, 400, "for $_" for qw(0 x 2h -1);
    is pool_json()->{suspended}, 0, 'no pool is suspended';
    unlike $httpd->error_log, qr/suspended for/, '... as the log shows, too';
};

subtest 'suspend, restart, resume' => sub {
    ok poll_until { $everywhere->() }, 'all children have their connections';
    my $load = $httpd->load(probe_at('acquire', 'sql=BEGIN', 'sql=SELECT 1', 'sql=COMMIT', 'httpstatus'), clients => 8);
    my $answer = order({ action => 'suspend', pool => 'default', for => '5min' },
        Origin => 'http://127.0.0.1:' . $httpd->port);
    is $answer->{status}, 200, 'ordered';
    is $answer->{content}, "default: suspended for 300 s\n", '... with the duration';
    ok poll_until { my $pool = pool_json(); !grep { $pool->{connections}{$_} } keys %{ $pool->{connections} } },
        'no child has a connection' or diag explain pool_json();
    is $httpd->get('/ready')->{status}, 503, 'not ready';
    is pool_json()->{suspended}, 1, 'the page says so';
    order({ action => 'suspend', pool => 'brief' });
    ok poll_until { told(probe($httpd, 'acquire=brief'), 'status') eq 'EUNAVAIL' },
        'a request that does not wait long is refused';
    like $httpd->error_log, qr/pool brief: .* an operator has suspended the pool/, '... the log says why';
    order({ action => 'resume', pool => 'brief' });
    $pg->restart;
    is order({ action => 'resume', pool => 'default' })->{content}, "default: resumed\n", 'resumed';
    ok poll_until { $everywhere->() }, 'all children connect again';
    is_deeply [keys %{ $load->stop }], [200], 'no request has failed';
    is pool_json()->{suspended}, 0, 'the page says so';
    like $httpd->error_log, qr/pgpool:warn.*PGP1021: pool default: suspended for 300 s, by order of somebody at 127\.0\.0\.1/,
        'the log has the order';
};

subtest 'a suspension ends by itself, and new children obey it' => sub {
    order({ action => 'suspend', pool => 'default', for => '4s' });
    ok poll_until { pool_json()->{connections}{idle} == 0 }, 'suspended';
    $httpd->graceful;
    tells probe($httpd, 'acquire', 'sql=SELECT 1'), { status => 0, value => 1 }, 'a request that waits is served';
    ok poll_until { !pool_json()->{suspended} }, '... at its end';
};

subtest 'reconnect' => sub {
    ok poll_until { $everywhere->() }, 'all children have their connections';
    my $held = hold($httpd, 'acquire', 'gate', 'sql=SELECT 1');
    my $pids = sub { return query($pg, q{SELECT pid FROM pg_stat_activity WHERE application_name = 'steered'}) };
    my %old = map { $_ => 1 } split /\n/, $pids->();
    order({ action => 'reconnect', pool => $_ }) for qw(default brief);
    my $is_old = sub { scalar grep { $old{$_} } split /\n/, $pids->() };
    ok poll_until { $is_old->() == 1 && $everywhere->() }, 'every idle connection is another one';
    tells let_go($held), { status => 0, value => 1 }, 'the one in use goes on';
    ok poll_until { $is_old->() == 0 }, '... and is closed when it comes back';
    ok $httpd->wait_log(qr/PGP1003: .*closed \(order\)/), 'the log has the reason';
};

$httpd->stop;
done_testing;
