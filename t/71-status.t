#!/usr/bin/perl

# The status page in all its formats: they agree with each other, with the server and with the
# access log; health; rates; the figures of a child that dies remain; text from outside is escaped.

use PgPoolTest;
use JSON::PP;
use List::Util qw(sum0);
use Probe;

my $pg = postgres;

my $handler = "<Location /pools>\n  SetHandler pgpool-status\n</Location>\n";

# ---- the formats

sub status {
    my ($httpd, $format, @option) = @_;
    return $httpd->get("/pools" . ($format ? "?$format" : ''), @option);
}

sub json { return decode_json(status($_[0], 'json')->{content}) }

# A pool's figures in JSON: now, or as soon as they meet a condition.
sub figures {
    my ($httpd, $pool) = @_;
    return json($httpd)->{pools}{ $pool // 'default' };
}

sub figures_when(&$;$) {
    my ($wanted, $httpd, $pool) = @_;
    my $seen;
    poll_until { local $_ = $seen = figures($httpd, $pool); $wanted->() };
    return $seen;
}

# JSON's nested objects as key.key.
sub flat {
    my ($value, $key) = @_;
    return ($key => $value) if ref $value ne 'HASH';
    return map { flat($value->{$_}, defined $key ? "$key.$_" : $_) } sort keys %$value;
}

sub auto { return { $_[0] =~ /^PgPool\.(.+): (\S+)$/mg } }

# Parse with Prometheus' own parser: { name{label=value,...} => value }, { family => [type, unit,
# help] }.  It needs /usr/bin/python3, for which Debian's package of the parser is.
my $parser = <<'PYTHON';
import sys, json
from prometheus_client.openmetrics.parser import text_string_to_metric_families
samples, families = [], {}
for family in text_string_to_metric_families(sys.stdin.read()):
    families[family.name] = [family.type, family.unit, family.documentation]
    samples += [[s.name, s.labels, s.value] for s in family.samples]
json.dump([samples, families], sys.stdout)
PYTHON

sub openmetrics {
    my ($text) = @_;
    my $out = '';
    IPC::Run::run(['/usr/bin/python3', '-c', $parser], '<', \$text, '>', \$out)
        or die "not OpenMetrics:\n$text";
    my ($samples, $families) = @{ decode_json($out) };
    my %value;
    for my $sample (@$samples) {
        my ($name, $labels, $value) = @$sample;
        $value{ "$name\{" . join(',', map { "$_=$labels->{$_}" } sort keys %$labels) . '}' } = $value;
    }
    return (\%value, $families);
}

# ---- at rest

# Two pools with different application names, by which the server tells them apart.
my $httpd = probed(<<"CONF", children => 2, modules => ['status']);
PgPoolConninfo "@{[conninfo($pg, application_name => 'main')]} password=sesame"
PgPoolMin 1
PgPoolMax 3
PgPoolTotalMax 5
TraceEnable off
<PgPool reports>
  PgPoolConninfo "@{[conninfo($pg, application_name => 'reports')]} password=sesame"
  PgPoolMax 2
</PgPool>
<Location /server-status>
  SetHandler server-status
</Location>
$handler
CONF

subtest 'the numbers are those of the server and of the access log' => sub {
    finish(map { $httpd->begin(probe_at('acquire', 'sql=SELECT pg_sleep(0.01)')) } 1 .. 40);
    $httpd->get(probe_at('acquire=reports')) for 1 .. 3;
    my $seen = figures_when {
        $_->{acquires} == 40 && $_->{hold}{count} == 40 && !$_->{connections}{closing}
            && !$_->{connections}{connecting}
    } $httpd;

    is $seen->{acquires}, () = $httpd->access_log =~ m{ default/\d+/\d+$}mg, 'acquires: the access log';
    is $seen->{wait}{count}, 40, '... each has a time of waiting';
    is $seen->{hold}{count}, 40, '... and of holding';
    is_deeply $seen->{connections},
        { idle => backends($pg, 'main'), map { $_ => 0 } qw(lent connecting cleaning closing) },
        'connections: pg_stat_activity';
    is $seen->{connects} - sum0(values %{ $seen->{closes} }), backends($pg, 'main'), '... connects less closes';
    is_deeply [@$seen{qw(min max total_max waiting exhausted unavailable health)}],
        [1, 3, 5, 0, 0, 0, 'ok'], 'the settings, no failures, health ok';
    my $other = figures_when { $_->{acquires} == 3 && $_->{hold}{count} == 3 && !$_->{connections}{connecting} }
        $httpd, 'reports';
    is $other->{acquires}, 3, 'the other pool';
    ok poll_until { figures($httpd, 'reports')->{connections}{idle} == backends($pg, 'reports') }, '... has its own';
};

subtest 'all formats agree' => sub {
    my ($all, $auto, $metrics, $page) = map { status($httpd, $_) } qw(json auto openmetrics), '';
    my $json = decode_json($all->{content});
    my ($sample, $family) = openmetrics($metrics->{content});

    is $all->{headers}{'content-type'}, 'application/json', 'JSON: type';
    is $metrics->{headers}{'content-type'},
        'application/openmetrics-text; version=1.0.0; charset=utf-8', 'OpenMetrics: type';
    like $metrics->{content}, qr/\n# EOF\n\z/, '... end';
    is $auto->{headers}{'content-type'}, 'text/plain; charset=utf-8', 'auto: type';
    is $page->{headers}{'content-type'}, 'text/html; charset=utf-8', 'page: type';
    is_deeply [map { $_->{headers}{'cache-control'} } $all, $auto, $metrics, $page],
        [('no-store') x 4], 'Cache-Control: no-store';

    my @child = map { $_->{pid} } @{ $json->{children} };
    is_deeply [sort @child], [sort $httpd->children], 'an entry a child';
    for my $pool (sort keys %{ $json->{pools} }) {
        my %figure = flat($json->{pools}{$pool});
        my $lines = auto($auto->{content});
        my @shared = grep { exists $lines->{"$pool.$_"} } sort keys %figure;
        is_deeply [map { $lines->{"$pool.$_"} + 0 } grep { $_ ne 'health' } @shared],
            [map { $figure{$_} + 0 } grep { $_ ne 'health' } @shared], "$pool: auto and JSON";
        cmp_ok @shared, '>', 25, '... in many figures';

        my $of = sub { $sample->{ "pgpool_$_[0]\{" . join(',', @_[1 .. $#_]) . '}' } };
        is $of->("$_\_total", "pool=$pool"), $figure{$_}, "$pool: metric $_"
            for qw(acquires waits exhausted unavailable connects unfit);
        is $of->($_, "pool=$pool"), $figure{$_}, "$pool: metric $_" for qw(min max total_max waiting);
        is $of->('connections', "pool=$pool", "state=$_"), $figure{"connections.$_"}, "$pool: $_"
            for qw(idle lent connecting cleaning closing);
        is $of->('closes_total', "pool=$pool", "reason=$_"), $figure{"closes.$_"}, "$pool: closed, $_"
            for keys %{ $json->{pools}{$pool}{closes} };
        for my $time (qw(wait hold)) {
            is $of->("$time\_seconds_count", "pool=$pool"), $figure{"$time.count"}, "$pool: $time, count";
            is $of->("$time\_seconds_bucket", 'le=+Inf', "pool=$pool"), $figure{"$time.count"}, '... all below +Inf';
            cmp_ok abs($of->("$time\_seconds_sum", "pool=$pool") - $figure{"$time.sum_seconds"}), '<', 1e-6, '... sum';
        }
        for my $name (qw(acquires waits connects)) {
            is sum0(map { $_->{pools}{$pool}{$name} } @{ $json->{children} }, $json->{ended}),
                $figure{$name}, "$pool: $name are those of the children";
        }
        like $page->{content}, qr{<th>acquires <small>[^<]*</small></th><td>$figure{acquires}</td>}, "$pool: the page";
    }
    is_deeply [@{ $family->{pgpool_wait_seconds} }[0, 1]], ['histogram', 'seconds'], 'a histogram in seconds';
    is_deeply [@{ $family->{pgpool_acquires} }[0, 1]], ['counter', ''], 'a counter';
    is_deeply [grep { !$family->{$_}[2] } keys %$family], [], 'each has its HELP';
};

subtest 'inside mod_status' => sub {
    my $page = $httpd->get('/server-status')->{content};
    like $page, qr{<h2>PostgreSQL pools</h2>.*<td>default</td><td>ok</td>.*<td>40</td>}s, 'a section';
    my $seen = figures($httpd);
    my $auto = auto($httpd->get('/server-status?auto')->{content});
    is $auto->{'default.acquires'}, 40, 'lines';
    is $auto->{'default.connections.idle'}, $seen->{connections}{idle}, '... of the same';
};

# ---- the page as HTTP

subtest 'refresh' => sub {
    my %refresh = ('' => undef, 0 => undef, -1 => undef, x => undef, 1 => 1, 2 => 2, 3600 => 3600,
        3601 => 3600, '9' x 30 => 3600);
    for my $asked (sort keys %refresh) {
        my ($got) = (status($httpd, "refresh=$asked")->{headers}{refresh} // '') =~ /\A(\d+);/;
        is $got, $refresh{$asked}, "refresh=$asked";
    }
    is status($httpd)->{headers}{refresh}, undef, 'none by default';
};

subtest 'rates are over the time since the last look' => sub {
    my $first = status($httpd, 'refresh=2');
    like $first->{content}, qr/mean of/, 'at first since the start';
    my ($next) = $first->{headers}{refresh} =~ /url=\?(\S+)\z/;
    $httpd->get(probe_at('acquire')) for 1 .. 5;
    figures_when { $_->{acquires} == 45 } $httpd;
    my $then = status($httpd, $next)->{content};
    my ($time, $unit, $rate) = $then =~ m{in the last&nbsp;([\d.]+)&nbsp;(m?s)<.*?<td>45</td><td>([\d.]+)</td>}s;
    my $seconds = $unit eq 's' ? $time : $time / 1000;
    cmp_ok abs($rate * $seconds - 5), '<', 0.1 * $seconds + 0.5, '... then between two looks';

    my ($when) = $next =~ /since=(\d+)/;
    for my $forged ('1', '1,2,3', 'x', '%3Cscript%3E', '-5,1_1', $next =~ s/.*since=\d+/9/r, "$when,2_1", "$when,-1_1",
        map({ "$when,1_$_" } 'x', '-1', '1_1', '1,2x', '999999', join(',', (0) x 100), '9' x 30)) {
        my $page = status($httpd, "since=$forged");
        is $page->{status}, 200, "a forged baseline: $forged";
        like $page->{content}, qr/mean of/, '... is ignored';
        unlike $page->{content}, qr/<script/i, '... and not shown';
    }
};

subtest 'methods' => sub {
    my $head = $httpd->begin('/pools', method => 'HEAD')->finish;
    is $head->{status}, 200, 'HEAD';
    is $head->{content}, '', '... has no body';
    is $head->{headers}{'content-type'}, 'text/html; charset=utf-8', '... but the type';
    for my $method (qw(POST PUT DELETE)) {
        my $got = $httpd->request($method => '/pools', { content => 'x' });
        is $got->{status}, 405, "$method: 405";
        is join(' ', sort split /,\s*/, $got->{headers}{allow}), 'GET HEAD', '... with the allowed methods';
    }
};

# ---- death

subtest 'the figures of a child that dies remain' => sub {
    my ($last, @back) = (figures($httpd)->{acquires});
    my $look = sub {
        my $now = figures($httpd)->{acquires};
        push @back, "$last to $now" if $now < $last;
        return $last = $now;
    };
    # After the death of a child, MPM worker does not tell one of the old children of a graceful
    # restart: that child serves on.
    my $is_worker = ($ENV{PGPOOL_MPM} // '') eq 'worker';
    for my $end ('kill', $is_worker ? () : 'graceful', 'kill') {
        my $load = $httpd->load(probe_at('acquire'), clients => 2);
        my $more = $last + 50;
        ok poll_until { $look->() > $more }, 'the count grows';
        my @old = $httpd->children;
        if ($end eq 'kill') { @old = $httpd->kill_child }
        else                { $httpd->graceful }
        ok poll_until {
            $look->();
            my %there = map { $_->{pid} => 1 } @{ json($httpd)->{children} };
            keys %there >= 2 && !grep { $there{$_} } @old;
        }, "$end: the list of children is the new one's";
        $load->stop;
    }
    is_deeply \@back, [], 'no total went backwards';
    cmp_ok json($httpd)->{ended}{pools}{default}{acquires}, '>', 50, 'the page has the figures of ended children';
};

ok !grep({ status($httpd, $_)->{content} =~ /sesame/ } qw(json auto openmetrics), ''), 'no password anywhere';
$httpd->stop;

# ---- health, borrowers, and text from outside

my $one = probed(<<"CONF", mpm => 'event', threads => 16);
PgPoolConninfo "@{[conninfo($pg)]} password=sesame"
PgPoolMin 0
PgPoolMax 5
PgPoolAcquireTimeout 60s
<PgPool broken>
  PgPoolConninfo "@{[conninfo($pg) =~ s/dbname=\S+//r]} password=sesame dbname='<i>&no</i>'"
  PgPoolMin 1
</PgPool>
$handler
CONF

subtest 'health' => sub {
    is figures_when(sub { $_->{health} eq 'ok' }, $one)->{health}, 'ok', 'at rest';
    my @held = map { hold($one, qw(acquire gate)) } 1 .. 4;
    my $seen = figures_when { $_->{connections}{lent} == 4 } $one;
    is $seen->{health}, 'busy', 'four of five in use';
    push @held, hold($one, qw(acquire gate));
    my @waiting = map { $one->begin(probe_at('acquire')) } 1 .. 3;
    $seen = figures_when { $_->{waiting} == 3 } $one;
    is $seen->{health}, 'exhausted', 'all in use, and three wait';
    like $seen->{why}, qr/5 of at most 5 .* 3 requests wait.* 1min /, '... with the cause';
    figures_when { $_->{health} eq 'down' } $one, 'broken';
    my $page = status($one)->{content};
    like $page, qr{<title>down }, 'the title is that of the worst pool';
    like $page, qr{<h2>default</h2> <span class="word exhausted">exhausted</span>}, 'each has its own';
    like $page, qr{aria-label="5 connections of at most 5, 5 in use"}, 'a bar';
    like $page, qr{aria-label="3 waiting"}, '... and another';
    let_go(@held);
    finish(@waiting);
    $seen = figures_when { $_->{hold}{count} == 8 && !$_->{waiting} } $one;
    is $seen->{health}, 'ok', 'all over';
    is $seen->{waits} >= 3, 1, '... and they have waited';
    cmp_ok $seen->{wait}{max}, '>', 0, '... for a time';
};

subtest 'a pool that cannot connect' => sub {
    my $seen;
    poll_until { ($seen = figures($one, 'broken'))->{health} eq 'down' };
    is $seen->{health}, 'down', 'is down';
    is $seen->{last_error}{sqlstate}, '3D000', '... with the SQLSTATE';
    like $seen->{last_error}{message}, qr{"<i>&no</i>" does not exist}, '... in the words of the server';
    cmp_ok $seen->{last_error}{age_seconds}, '<', 60, '... and since when';
    cmp_ok $seen->{connect_failures}, '>', 0, '... and how often';
    my $page = status($one)->{content};
    like $page, qr{Last error.*&lt;i&gt;&amp;no&lt;/i&gt;.*\(SQLSTATE 3D000\)}, 'so does the page';
    unlike $page, qr{<i>&no}, '... escaped';
};

subtest 'a hostile borrower' => sub {
    my $path = '/probe/%3Cscript%3Ealert(1)%3C/script%3E%22%27%26%5C%0A%7D%0D%1B%FF%C3%A4';
    my $gate = $one->dir . '/hostile';
    my $query = probe_at('acquire', q(sql=SELECT 'hunter2'), "touch=$gate.reached", "hold=$gate.open");
    my $pending = $one->begin($query =~ s{\A/probe}{$path}r,
        headers => { 'User-Agent' => '<b>agent</b>', Referer => '"><script>' });
    ok poll_until { -e "$gate.reached" }, 'it has a connection';
    my $seen = figures_when { $_->{holders}[0] && $_->{holders}[0]{request} } $one;
    my $holder = $seen->{holders}[0];
    is $holder->{request}, qq[GET /probe/<script>alert(1)</script>"'&\\ }  ?\x{e4} (pgpool-probe)],
        'JSON: its characters, and no others';
    is $holder->{client}, '127.0.0.1', '... its address';
    ok query($pg, "SELECT count(*) FROM pg_stat_activity WHERE pid = $holder->{backend}"), '... its backend';
    cmp_ok $holder->{seconds}, '>=', 0, '... how long';
    my %text = map { $_ => status($one, $_)->{content} } qw(json auto openmetrics), '';
    like $text{''}, qr{GET /probe/&lt;script&gt;alert\(1\)&lt;/script&gt;&quot;}, 'page: escaped';
    unlike $text{''}, qr/<script|<b>agent|<i>/i, '... and nothing else';
    unlike $text{''}, qr/[^\n\x20-\x7e\x80-\xff]/, '... without control characters';
    openmetrics($text{openmetrics});
    unlike $text{$_}, qr/hunter2|sesame|reached/, "'$_': no query string, no password" for sort keys %text;
    Httpd::spew("$gate.open", '');
    $pending->finish;
};
$one->stop;

# The main server's pool keeps its name.  The label of a virtual host's pool that differs has the
# host's name.
subtest 'several pools of one name' => sub {
    my $host = sub { my ($name, $lines) = @_; "<VirtualHost *:\${PORT}>\n ServerName $name\n $lines\n</VirtualHost>\n" };
    my $several = probed(<<"CONF" . $host->('shop.example', 'PgPoolMax 2') . $host->('blog.example', 'PgPoolMax 1')
PgPoolConninfo "@{[conninfo($pg)]}"
PgPoolMin 0
PgPoolMax 3
$handler
CONF
        . $host->('blog.example', 'PgPoolMax 4') . $host->('same.example', '') . $host->('alias.example', 'PgPoolMax 2'));
    my $port = $several->port;
    my %max = (default => 3, "default (shop.example:$port)" => 2, "default (blog.example:$port)" => 1,
        "default (blog.example:$port)#2" => 4);
    my $pools = json($several)->{pools};
    is_deeply { map { $_ => $pools->{$_}{max} } keys %$pools }, \%max, 'JSON: a label each';
    my ($sample) = openmetrics(status($several, 'openmetrics')->{content});
    is_deeply { map { /^pgpool_max\{pool=(.*)\}/ ? ($1 => $sample->{$_}) : () } keys %$sample }, \%max, 'OpenMetrics';
    my $auto = auto(status($several, 'auto')->{content});
    is $auto->{"default (shop.example:$port).max"}, 2, 'auto';
    like status($several)->{content}, qr{<h2>default \(shop\.example:$port\)</h2>}, 'page';
    $several->stop;
};

subtest 'no pool at all' => sub {
    my $none = Httpd->new(conf => $handler)->start;
    is status($none, $_)->{status}, 200, "'$_'" for qw(json auto openmetrics), '';
    $none->stop;
};

# A limit smaller than httpd's default: the counters here are small, and so are the links.
subtest 'links of many pools' => sub {
    my $all = 600;
    my $many = probed(join "\n", 'LimitRequestLine 4200', 'PgPoolConninfo "host=/nowhere"', 'PgPoolMin 0',
        'PgPoolAcquireTimeout 0', $handler, map { "<PgPool p$_>\n</PgPool>" } 1 .. $all);
    for my $tens (0 .. $all / 10 - 1) {
        probe($many, map { 'acquire=p' . (10 * $tens + $_) } 1 .. 10);
    }
    poll_until { (grep { $_->{unavailable} } values %{ json($many)->{pools} }) == $all };
    my ($next) = status($many, 'refresh=2')->{headers}{refresh} =~ /url=\?(\S+)\z/;
    my $page = status($many, $next);
    is $page->{status}, 200, 'the next look is taken';
    my @link = $page->{content} =~ /href="\?([^"]*since=[^"]*)"/g;
    cmp_ok scalar @link, '>', 0, '... and has links';
    is_deeply [grep { status($many, s/&amp;/&/gr)->{status} != 200 } @link], [], '... which are all taken';
    $many->stop;
};

done_testing;
