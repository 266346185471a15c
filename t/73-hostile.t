#!/usr/bin/perl

# An attacker who controls a child writes into all memory that the children share.  The parent
# survives and obeys, other children survive, the page answers, and when the hostile child has gone,
# the pools work again.

use PgPoolTest;
use JSON::PP;
use List::Util qw(sum0);
use Probe;

my $pg = postgres("max_connections = 60\n");

my @format = ('', '?json', '?openmetrics', '?auto');

# PgPoolMin 0: all connections are closed at the end, so the server's count shows a leak.
sub attacked {
    my ($mpm, @pool) = @_;
    my $more = join '', map { "<PgPool $_>\n  PgPoolMax 3\n</PgPool>\n" } @pool;
    return <<"CONF";
PgPoolConninfo "@{[conninfo($pg)]}"
PgPoolMin 0
PgPoolMax 4
PgPoolTotalMax 8
PgPoolAcquireTimeout 5s
TraceEnable off
$more
<Location /hostile>
  SetHandler pgpool-hostile
</Location>
<Location /pools>
  SetHandler pgpool-status
</Location>
<Location /probe>
  SetHandler pgpool-probe
</Location>
CONF
}

sub pages_are_sane {
    my ($httpd, $name) = @_;
    my @wrong;
    for my $format (@format) {
        my $page = $httpd->get("/pools$format");
        push @wrong, "$format: $page->{status}" if $page->{status} != 200;
        push @wrong, "$format: $_" for $page->{content} =~ /((?:-\d{5,}|\d{19,}|\bnan\b|\binf\b)\S*)/g;
        push @wrong, "$format: no end" if $format eq '?openmetrics' && $page->{content} !~ /\n# EOF\n\z/;
        push @wrong, "$format: $@" if $format eq '?json' && !eval { decode_json($page->{content}) };
    }
    return is_deeply \@wrong, [], $name;
}

sub json { my ($httpd) = @_; return decode_json($httpd->get('/pools?json')->{content}) }

sub waiting {
    my ($httpd) = @_;
    return sum0(map { $_->{waiting} } values %{ json($httpd)->{pools} });
}

sub is_served { my ($httpd) = @_; return (told($httpd->get(probe_at('acquire')), 'status') // 1) eq '0' }

# The pages of the shared memory, in kB, that a process has read or written; undef: it has none.
sub touched_by {
    my ($pid) = @_;
    return Httpd::slurp("/proc/$pid/smaps") =~ /mod_pgpool-board.*\n(?:.*\n)*?Rss: +(\d+) kB/ ? $1 : undef;
}

for my $mpm (mpms) {
    subtest $mpm => sub {
        my $httpd = Httpd->new(mpm => $mpm, threads => $mpm eq 'prefork' ? 1 : 4, children => 3,
            modules => [qw(pgpool pgpool_probe pgpool_hostile)], conf => attacked($mpm))->start;
        my $parent = $httpd->pid;
        my $generation = 0;
        for my $word ($mpm eq 'event' ? (0, 1, -1, qw(most least)) : (), 'random') {
            ok poll_until { is_served($httpd) }, "before $word: served";
            my $load = $httpd->load(probe_at('acquire'), clients => 2);
            for (1 .. 10) {
                my $filled = $httpd->get("/hostile?fill=$word");
                $filled->{status} == 200 or die "the shared memory was not found\n";
            }
            pages_are_sane($httpd, "$word: all formats answer with sane numbers");
            unlike $httpd->error_log, qr/exit signal/, '... and no child crashes';
            $httpd->get("/hostile?fill=$word");

            # A new pool each time: the parent gives it a place.
            $httpd->conf(attacked($mpm, 'p' . ++$generation));
            my @old = $httpd->children;
            $httpd->graceful;
            $httpd->get("/hostile?fill=$word");
            push @old, $httpd->children;
            $httpd->graceful;
            $load->stop;
            is $httpd->pid, $parent, 'after a graceful restart the parent is the same';
            ok kill(0, $parent), '... and lives';
            is touched_by($parent), 0, '... and has not touched the shared memory';
            $httpd->wait_gone(@old);
            ok poll_until { is_served($httpd) }, '... requests are served again';
            pages_are_sane($httpd, '... and all formats answer');
        }
        ok poll_until { waiting($httpd) == 0 }, 'no request waits';
        $httpd->stop;
        $httpd->start;
        ok is_served($httpd), 'after stop and start requests are served';
        my $seen = json($httpd)->{pools}{default};
        cmp_ok $seen->{acquires}, '<', 10, '... and the counters begin at 0';
        $httpd->stop;
        ok poll_until { backends($pg) == 0 }, 'no connection is left';
    };
}

subtest 'limits that the kernel sets' => sub {
    my $httpd = httpd(attacked('event'), modules => [qw(pgpool pgpool_probe pgpool_hostile)], children => 2);
    my $answer = $httpd->get('/hostile?cut');
    tells $answer, { map { $_ => 'Operation not permitted' } qw(grow write unseal) },
        'the hostile child can neither grow, write nor unseal the file of locks';
    my ($hostile) = told($httpd->get('/hostile?locks'), 'pid');
    my ($other) = grep { $_ != $hostile } $httpd->children;
    pages_are_sane($httpd, 'it holds all locks that were free: all formats answer');
    my %pid = map { $_->{pid} => 1 } @{ json($httpd)->{children} };
    ok $pid{$other}, '... and another child keeps its seat';
    kill KILL => $hostile;
    $httpd->{killed}{$hostile} = 1;
    $httpd->wait_gone($hostile);
    $httpd->wait_complete;
    ok poll_until { is_served($httpd) }, 'when it has gone, requests are served';
    $httpd->stop;
};

done_testing;
