#!/usr/bin/perl

# mod_pgpool beside mod_dbd, on the same httpd and the same server, in turn:
#
#   throughput   SELECT 1 for 16 keep-alive clients over 8 connections, for each PgPoolReset; also
#                mod_dbd with a handler that sends one more message and does not wait for the answer
#   query        mod_pgpool_query: one row by its key as JSON, for 16 keep-alive clients; beside it
#                the limit (the same statement, prepared on a connection of each thread, without any
#                check), and a handler that executes a prepared statement of mod_dbd
#   dbd          consumers of mod_dbd over mod_pgpool_dbd and over mod_dbd: a login by mod_authn_dbd
#                and a key of RewriteMap, known and unknown, 16 clients, 8 connections
#   pairs        acquire and return without a query, on 1, 8 and 32 threads: the mean time of a pair
#                in the whole process, and the processor time that it takes
#   board        the same on one thread: without shared figures, with them, while they are read
#   queue        32 clients on 8 connections, each query takes 20 ms: latency
#   children     64 clients on 10 connections, of one child and of four that share them: waits
#   faults       requests that fail, hang or harm others during a fault; see Faults.pm
#
#   t/bench/run [PART...]     by default all parts
#   BENCH_SECONDS             duration of a measurement with clients; default 2
#   BENCH_ROUNDS              number of measurements of each; default 5
#
# Figures of one machine mean little on another.  So each has its ratio to the first one beside it,
# which is mod_dbd's in most tables: the median of the ratios of all rounds, so that a disturbance
# of a whole round does not count.

use Bench;
use Digest::SHA qw(sha1_base64);
use MIME::Base64 qw(encode_base64);
use Children;
use Faults;
use PgPoolTest;
use Wrk;

my $seconds = $ENV{BENCH_SECONDS} // 2;
my $rounds = $ENV{BENCH_ROUNDS} // 5;
my %part = (
    throughput => \&throughput,
    query      => \&query_part,
    dbd        => \&bridge,
    pairs      => \&pairs,
    board      => \&board,
    queue      => \&queue,
    children   => \&Children::children,
    faults     => \&Faults::faults,
);
my @parts = @ARGV ? @ARGV : qw(throughput query dbd pairs board queue children faults);
my @unknown = grep { !$part{$_} } @parts;
die "there is no part @unknown\n" if @unknown;

my @resets = qw(transaction auto session all);
my %after = (empty => ';', reset => 'DISCARD ALL');
my %name = (
    dbd     => 'mod_dbd',
    empty   => 'mod_dbd, and an empty message',
    reset   => 'mod_dbd, and a DISCARD ALL',
    pgpool  => 'mod_pgpool',
    default => 'mod_pgpool',
    thread  => 'one connection a thread, unchecked',
    prepared => 'prepared, one connection a thread, unchecked',
    pselect  => 'mod_dbd, prepared',
    map { $_ => "mod_pgpool, PgPoolReset $_" } @resets,
);

$part{$_}->() for @parts;

# ---- the parts

sub throughput {
    my @pools = map { "<PgPool $_>\nPgPoolReset $_\n</PgPool>\n" } @resets;
    my @locations = map { location($_, 'bench-pgpool', "PgPoolUse $_") } @resets;
    push @locations, map { location($_, "bench-$_") } qw(dbd thread);
    push @locations, map { location($_, 'bench-dbd', qq(BenchAfter "$after{$_}")) } keys %after;
    my $httpd = bench_httpd(conninfo(server), 8, @pools, @locations);
    my @way = ('dbd', @resets, sort(keys %after), 'thread');
    my $seen = in_turn($rounds, \@way, sub {
        my ($way, $time) = @_;
        return Wrk::run($httpd->url("/$way"), clients => 16, seconds => $time);
    });
    $httpd->stop;

    title('SELECT 1, 16 clients, 8 connections', 'requests/s', 'of mod_dbd');
    row($name{$_}, $seen, $_, qw(rate /rate)) for @way;
    return;
}

sub query_part {
    my $select = 'SELECT id, price, name FROM item WHERE id = %s::int';
    my $json = sub { "WITH q AS ($_[0]) SELECT pg_catalog.row_to_json(q.*) FROM q" };
    my @way = ('prepared', 'pselect', qw(transaction auto session));
    query(server, q{CREATE TABLE item AS SELECT i AS id, i * 3 AS price, 'name ' || i AS name FROM generate_series(1, 100000) i});
    query(server, 'ALTER TABLE item ADD PRIMARY KEY (id)');
    query(server, 'VACUUM ANALYZE item');
    my $param = $select =~ s/%s/\$1/r;
    my $httpd = bench_httpd(conninfo(server), 16,
        map({ "<PgPool $_>\nPgPoolReset $_\nPgPoolStatements 100\n</PgPool>\n" } qw(transaction auto session)),
        'DBDPrepareSQL "' . $json->($select) . "\" row\n",
        location('prepared', 'bench-prepared', 'BenchSQL "' . $json->($param) . '"'),
        location('pselect', 'bench-pselect'),
        map { location($_, 'pgpool-query', "PgPoolUse $_", qq(PgPoolQuery "$param" "%{arg:k}")) } qw(transaction auto session));
    my $expected = $httpd->get('/prepared?k=4711')->{content};
    $httpd->get("/$_?k=4711")->{content} eq $expected or die "$_ answers another row\n" for @way;
    my $seen = in_turn($rounds, \@way, sub {
        my ($way, $time) = @_;
        return Wrk::run($httpd->url("/$way?k=4711"), clients => 16, seconds => $time);
    });
    $httpd->stop;

    title('one row by key as JSON, 16 clients, 16 connections', 'requests/s', 'of the limit');
    row($name{$_}, $seen, $_, qw(rate /rate)) for @way;
    return;
}

# An unknown user is refused: there failed requests are the right answers.
sub bridge {
    query(server, 'CREATE TABLE account (name text PRIMARY KEY, password text)');
    query(server, "INSERT INTO account VALUES ('amy', '{SHA}" . sha1_base64('x') . "=')");
    my $conf = <<'CONF';
RewriteEngine on
RewriteMap known "dbd:SELECT '/page.txt' FROM account WHERE name = %s"
RewriteRule ^/map/(.*)$ ${known:$1|/page.txt} [L]
<Location /login>
  AuthType Basic
  AuthName x
  AuthBasicProvider dbd
  AuthDBDUserPWQuery "SELECT password FROM account WHERE name = %s"
  Require valid-user
</Location>
CONF
    my %httpd = map { $_ => bridged_httpd(conninfo(server), 8, $_, $conf) } qw(dbd pgpool_dbd);
    for my $what (qw(/login/amy /login/eve /map/amy /map/eve)) {
        my ($user) = $what =~ /(\w+)$/;
        my $path = $what =~ /login/ ? '/login/page.txt' : $what;
        my $seen = in_turn($rounds, [qw(dbd pgpool_dbd)], sub {
            my ($way, $time) = @_;
            return Wrk::run($httpd{$way}->url($path), clients => 16, seconds => $time, may_fail => 1,
                header => 'Authorization: Basic ' . encode_base64("$user:x", ''));
        });
        title("$what, 16 clients, 8 connections", 'requests/s', 'of mod_dbd', 'p50 ms');
        row($_ eq 'dbd' ? 'mod_dbd' : 'mod_pgpool_dbd', $seen, $_, qw(rate /rate p50)) for qw(dbd pgpool_dbd);
    }
    $_->stop for values %httpd;
    return;
}

sub pairs {
    my @way = qw(dbd default);
    my $httpd = bench_httpd(conninfo(server), 32, "PgPoolReset transaction\n", location('pairs', 'bench-pairs'));
    title('acquire and return, no query, 32 connections',
        'ns', 'of mod_dbd', 'processor ns', 'of mod_dbd');
    for my $threads (1, 8, 32) {
        my $seen = in_turn(3 * $rounds, \@way, sub { pairs_of($httpd, $_[0], $threads) });
        row("$name{$_}, threads: $threads", $seen, $_, qw(elapsed /elapsed used /used)) for @way;
    }
    $httpd->stop;
    return;
}

sub pairs_of {
    my ($httpd, $way, $threads) = @_;
    my $each = int(400_000 / $threads);
    my $got = $httpd->get("/pairs?$way&$threads&$each");
    die "pairs: $got->{status}\n" if !$got->{success};
    my ($elapsed, $used, $pairs) = split ' ', $got->{content};
    return { elapsed => $elapsed / $pairs, used => $used / $pairs };
}

sub board {
    my $httpd = bench_httpd(conninfo(server), 1, location('pairs', 'bench-pairs'));
    my $unposted = Children::unposted_pool($httpd);
    my %board_name = (
        unposted => 'figures not shared',
        shared   => 'figures shared by the children',
        scraped  => 'and read a hundred times a second',
    );
    my @way = qw(unposted shared scraped);
    my $seen = in_turn(3 * $rounds, \@way, sub {
        my ($way) = @_;
        my $scrapes = $way eq 'scraped' && $httpd->load('/status?json', clients => 1, keep_alive => 1, pause => 0.008);
        return pairs_of($httpd, $way eq 'unposted' ? $unposted : 'default', 1);
    });
    $httpd->stop;

    title('acquire and return, no query, one thread', 'ns', 'of the first');
    row($board_name{$_}, $seen, $_, qw(elapsed /elapsed)) for @way;
    return;
}

# If all were served in order, each client would have its answer after 32 / 8 * 20 = 80 ms.
sub queue {
    my @way = qw(dbd pgpool);
    my $sql = 'BenchSQL "SELECT 1 FROM pg_sleep(0.02)"';
    my $httpd = bench_httpd(conninfo(server), 8, map { location($_, "bench-$_", $sql) } @way);
    my $seen = in_turn($rounds, \@way, sub {
        my ($way, $time) = @_;
        return Wrk::run($httpd->url("/$way"), clients => 32, seconds => $time);
    });
    $httpd->stop;

    title('32 clients, 8 connections, 20 ms each (ideal 80)',
        'p50 ms', 'p99 ms', 'of mod_dbd', 'max ms');
    row($name{$_}, $seen, $_, qw(p50 p99 /p99 max)) for @way;
    return;
}

# ---- measuring

# Measure each way once a round; each round begins with another way.  Before that, each runs once
# without counting.  Returns the figures of each way, round by round.
sub in_turn {
    my ($times, $ways, $measure) = @_;
    my @way = @$ways;
    my %seen = (first => $way[0]);
    $measure->($_, 1) for @way;
    for (1 .. $times) {
        push @{ $seen{$_} }, $measure->($_, $seconds) for @way;
        push @way, shift @way;
    }
    return \%seen;
}

# ---- the table

# A column is the name of a figure; with a slash before it, the ratio to that figure of the first
# way.
sub row {
    my ($text, $seen, $way, @column) = @_;
    return line($text, map { cell($seen, $way, $_) } @column);
}

sub cell {
    my ($seen, $way, $figure) = @_;
    my $ratio = $figure =~ s{\A/}{};
    my @value = map { $_->{$figure} } @{ $seen->{$way} };
    my @first = map { $_->{$figure} } @{ $seen->{ $seen->{first} } };
    return sprintf '%.2f', median(map { $value[$_] / $first[$_] } 0 .. $#value) if $ratio;
    return sprintf median(@value) < 200 ? '%.1f' : '%.0f', median(@value);
}
