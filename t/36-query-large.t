#!/usr/bin/perl

# mod_pgpool_query: results of any size take little memory, and slow readers hold no connection.

use PgPoolTest;
use Endpoint;
use File::Temp ();
use IO::Select;

# PgPoolMax is 1: if a reader of a long answer held the connection, other requests would fail.
my $pg = postgres;
my $spool = File::Temp->newdir('spool-XXXXXX', DIR => $ENV{TESTDIR});

sub rows { return q{SELECT i, repeat('x', 1000) AS s FROM generate_series(1, $1::int) i}, '%{arg:rows}' }

sub conf {
    my (@more) = @_;
    return join "\n", 'PgPoolConninfo "' . conninfo($pg) . '"', 'PgPoolMin 1', 'PgPoolMax 1', 'PgPoolStatementTimeout 10min', @more;
}

my $httpd = httpd(conf(
        map({ section("/$_", 'SetHandler pgpool-query', "PgPoolQueryFormat $_", pgpool_query(rows())) } qw(array lines csv)),
        endpoint('/wide', q{SELECT repeat('x', 100000) AS s FROM generate_series(1, 2000)}),
        section('/few', 'SetHandler pgpool-query', 'PgPoolQueryMaxSize 10K', pgpool_query(rows())),
        section('/value', 'SetHandler pgpool-query', 'PgPoolQueryFormat value', 'PgPoolQueryMaxSize 1M',
            pgpool_query(q{SELECT repeat('x', $1::int)}, '%{arg:rows}')),
        endpoint('/endless', q{SELECT generate_series(1, 1000000000) AS i, repeat('x', 1000) AS s}),
        section('/endless', 'PgPoolQueryMaxSize 5M'),
        section('/endless/late', 'PgPoolQueryMaxSize 0', 'PgPoolStatementTimeout 300ms'),
        section('/endless/left', 'PgPoolQueryMaxSize 0'),
        endpoint('/one', 'SELECT 1 AS one')),
    modules => [qw(pgpool pgpool_query)], env => { TMPDIR => "$spool" }, children => 1, threads => 32,
    (($ENV{PGPOOL_MPM} // '') eq 'prefork' ? (threads => 1) : ()));

# The text of a row in each format, by its number.
my $s = 'x' x 1000;
my %row = (array => sub { qq({"i":$_[0],"s":"$s"}) }, lines => sub { qq({"i":$_[0],"s":"$s"}\n) }, csv => sub { "$_[0],$s\r\n" });

sub expected {
    my ($format, $rows) = @_;
    my @row = map { $row{$format}->($_) } 1 .. $rows;
    return '[' . join(", \n ", @row) . ']' if $format eq 'array';
    return join '', $format eq 'csv' ? "i,s\r\n" : (), @row;
}

# Anonymous memory of the child in kB, without mapped files.
sub resident {
    my ($child) = $httpd->children;
    return Httpd::slurp("/proc/$child/status") =~ /^RssAnon:\s+(\d+)/m ? $1 : die "no child\n";
}

# Test that the child's memory has not grown; the address sanitizer keeps freed memory for a while.
sub stays_flat {
    my ($before, $name) = @_;
    my $grown = resident() - $before;
    cmp_ok $grown, '<', 20_000, $name if ($ENV{PGPOOL_SANITIZE} // '') ne 'address';
    return;
}

sub files_left { return scalar(my @file = glob "$spool/*") }

for my $format (sort keys %row) {
    subtest $format => sub {
        # Sizes around the first piece of memory, around a megabyte, and beyond.
        for my $rows (7, 8, 9, 1_015 .. 1_025, 1_050, 5_000) {
            my $got = $httpd->get("/$format?rows=$rows");
            my $expected = expected($format, $rows);
            ok $got->{content} eq $expected, "$rows rows: " . length $expected;
            is $got->{headers}{'content-length'}, length $expected, '... and their length' if $rows == 5_000;
        }
    };
}

subtest 'memory' => sub {
    $httpd->get('/lines?rows=2000') for 1 .. 3;
    my $before = resident();
    my $got = $httpd->get('/wide', { data_callback => sub { } });
    cmp_ok $got->{headers}{'content-length'}, '>', 200_000_000, '200 MB';
    stays_flat($before, '... are not in memory');
    is files_left(), 0, 'no file has a name';
};

subtest 'slow readers' => sub {
    my $before = resident();
    my @slow = map { $httpd->begin('/lines?rows=20000', rcvbuf => 4096) } 1 .. 8;
    ok(IO::Select->new($_->{socket})->can_read(60), 'a reader gets the first of 20 MB') for @slow;
    is $httpd->get('/one')->{content}, '[{"one":1}]', 'they hold no connection';
    stays_flat($before, '... nor memory');
    is files_left(), 0, 'no file has a name';
    $_->abandon for @slow;
};

subtest 'rows without end' => sub {
    is $httpd->get('/endless/late')->{status}, 504, 'end at the deadline';
    is $httpd->get('/one')->{status}, 200, '... the next is served';
    my $left = $httpd->begin('/endless/left');
    my $running = sub { query($pg, q{SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%generate_series(1, 1000000000)%' AND pid <> pg_backend_pid()}) };
    ok poll_until { $running->() }, 'without a deadline they run';
    $left->abandon;
    ok poll_until { !$running->() }, '... until their client has gone';
    is $httpd->get('/one')->{status}, 200, '... the next is served';
};

sub too_long {
    my ($path, $most) = @_;
    my $from = $httpd->log_end;
    my $got = $httpd->get($path);
    is $got->{status}, 500, "$path: status";
    is index($got->{content}, 'PgPool'), -1, '... the body has no details';
    like $httpd->error_log($from), qr/PGP2002: PgPoolQuery at \S+: the result is longer than PgPoolQueryMaxSize \($most bytes\)/,
        '... the log has the cause';
    is $httpd->get('/one')->{status}, 200, '... the next is served';
    return;
}

subtest 'PgPoolQueryMaxSize' => sub {
    is $httpd->get('/few?rows=9')->{status}, 200, 'a result may be shorter';
    too_long('/few?rows=11', 10_240);
    is $httpd->get('/value?rows=1048576')->{status}, 200, '... or just as long';
    too_long('/value?rows=1048577', 1_048_576);
    too_long('/endless', 5 << 20);
};
$httpd->stop;


done_testing;
