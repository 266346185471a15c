#!/usr/bin/perl

# Large results: libpq's buffers never shrink, so a connection that had a large result is closed
# when it comes back, and the child gives the memory back to the system.

use PgPoolTest;
use Probe;

my $pg = postgres;
my $conninfo = conninfo($pg);
# One child, which has several requests at once.
my $httpd = probed(<<"CONF", mpm => 'event', modules => ['pgpool_query']);
PgPoolConninfo "$conninfo"
PgPoolMin 4
<PgPool one>
  PgPoolMin 1
  PgPoolMax 1
</PgPool>
<Location /length>
  SetHandler pgpool-query
  PgPoolUse one
  PgPoolQueryBody 10M
  <Limit POST>
  PgPoolQuery "SELECT length(\$1)" "%{REQUEST_BODY}"
  </Limit>
</Location>
<Location /large>
  SetHandler pgpool-query
  PgPoolUse one
  PgPoolQuery "SELECT repeat('x', 9000000) AS v"
</Location>
CONF

# A row whose second column is large; the probe reports the first one.
sub row_of { my ($bytes) = @_; return "SELECT 1, repeat('x', $bytes)" }

# The child's resident memory in kB.
sub resident {
    my ($child) = $httpd->children;
    return Httpd::slurp("/proc/$child/status") =~ /^VmRSS:\s+(\d+) kB/m ? $1 : die 'no VmRSS';
}

SKIP: {
    skip 'a sanitizer keeps what is freed', 1 if $ENV{PGPOOL_SANITIZE};
    subtest 'four results of 60 MB' => sub {
        probe($httpd, 'acquire', 'sql=SELECT 1');
        my $before = resident();
        my @held = map { hold($httpd, 'acquire', 'sql=' . row_of(60_000_000)) } 1 .. 4;
        cmp_ok resident(), '>', $before + 200_000, 'take memory';
        tells $_, { status => 0, value => 1 }, '... are received' for let_go(@held);
        ok poll_until { resident() < $before + 50_000 }, '... and the memory is given back'
            or diag "$before kB before, ", resident(), ' kB after';
    };
}

# Test that the connection of such a request is closed as large, and another one serves the next
# request.
sub is_closed {
    my ($name, @command) = @_;
    my $from = $httpd->log_end;
    my $pid = told(probe($httpd, 'acquire=one', @command), 'pid');
    isnt told(probe($httpd, 'acquire=one'), 'pid'), $pid, "$name: another connection";
    ok $httpd->wait_log(qr/pool one, backend $pid: closed \(large\)/, from => $from), '... since it was large';
    return;
}

subtest 'a large result' => sub {
    is_closed('a row', 'sql=' . row_of(9_000_000));
    is_closed('row by row', 'single=' . row_of(9_000_000));
    is_closed('in a transaction', 'sql=BEGIN', 'sql=' . row_of(9_000_000));
};

subtest 'a lesser one' => sub {
    my $pid = told(probe($httpd, 'acquire=one', 'sql=' . row_of(4_000_000)), 'pid');
    is told(probe($httpd, 'acquire=one'), 'pid'), $pid, 'leaves the connection open';
};

subtest 'a large answer of mod_pgpool_query' => sub {
    my $from = $httpd->log_end;
    is length $httpd->get('/large')->{content}, 9_000_000 + length('[{"v":""}]'), 'is complete';
    ok $httpd->wait_log(qr/pool one, backend \d+: closed \(large\)/, from => $from), '... and its connection closed';
};

subtest 'a large value for mod_pgpool_query' => sub {
    my $from = $httpd->log_end;
    my $body = $httpd->post('/length', 'x' x 9_000_000)->{content};
    is $body, '[{"length":9000000}]', 'is received';
    ok $httpd->wait_log(qr/pool one, backend \d+: closed \(large\)/, from => $from), '... and its connection closed';
};

$httpd->stop;

done_testing;
