#!/usr/bin/perl

# A statement in a cleanup of the request's APR pool comes too late: the connection was returned
# before.  Builds with a sanitizer detect that.

use PgPoolTest;
use Probe;

plan skip_all => 'only builds with a sanitizer check this' if !$ENV{PGPOOL_SANITIZE};

my $pg = postgres;

for my $mpm (mpms()) {
    my $httpd = probed('PgPoolConninfo "' . conninfo($pg) . "\"\nPgPoolMin 1\nPgPoolMax 1\n", mpm => $mpm, threads => 2);
    $httpd->may_die($httpd->children);
    my $from = $httpd->log_end;
    probe($httpd, 'acquire', 'late=SELECT 1');
    like $httpd->wait_log(qr/(mod_pgpool: pool default, backend \d+: a result has come while nobody had the connection.*)/, from => $from),
        qr/after it has gone back/, "$mpm: the child logs the cause";
    ok poll_until { $httpd->error_log($from) =~ /exit signal Abort/ }, '... and aborts';
    $httpd->stop;
}

done_testing;
