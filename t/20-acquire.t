#!/usr/bin/perl

# Borrowing: a request has one connection, and no other request has the same; notes, release, named
# pools, PgPoolUse, open and close, hooks; and the errors if there is no connection.

use PgPoolTest;
use Probe;
use IO::Select;

my $pg = postgres;

# The directives of a pool; its connections have the pool's name as application_name.
sub pool {
    my ($name, @line) = @_;
    my $conninfo = conninfo($pg, application_name => $name);
    return join "\n", qq(PgPoolConninfo "$conninfo"), @line;
}

sub in_pool {
    my ($name, @line) = @_;
    return join "\n", "<PgPool $name>", pool($name, @line), '</PgPool>';
}

sub subrequest { return 'subreq=' . probe_at(@_) }
sub redirect   { return 'redirect=' . probe_at(@_) }

# ---- on each MPM: a request has one connection, and no other request has the same

# Name, number of pids in the answer, commands.
my @family = (
    ['acquire again'                   => 2, qw(acquire acquire)],
    ['a subrequest'                    => 2, 'acquire', subrequest('acquire')],
    ['a subrequest, then the request'  => 2, subrequest('acquire'), 'acquire'],
    ['two subrequests'                 => 2, subrequest('acquire'), subrequest('acquire')],
    ['a subrequest of a subrequest'    => 2, subrequest('acquire', subrequest('acquire'))],
    ['a redirect'                      => 2, 'acquire', redirect('acquire')],
    ['two redirects'                   => 3, 'acquire', redirect('acquire', redirect('acquire'))],
    ['a redirect, then a subrequest'   => 3, 'acquire', redirect('acquire', subrequest('acquire'))],
    ['an ErrorDocument'                => 2, qw(acquire fail=404)],
    ['a redirect and an ErrorDocument' => 3, 'acquire', redirect('acquire', 'fail=404')],
);

sub one_request_has_one {
    my ($httpd) = @_;
    for (@family) {
        my ($name, $askers, @command) = @$_;
        my $answer = probe($httpd, @command);
        my $pids = told_all($answer, 'pid');
        is_deeply $pids, [($pids->[0] // 'none') x $askers], $name or diag $answer->{content};
    }
    tells probe($httpd, qw(acquire again)), { again => 0, same => 1 }, 'the same PGconn, too';
    return;
}

sub no_two_have_the_same {
    my ($httpd) = @_;
    my @held = map { hold($httpd, qw(acquire gate again)) } 1 .. 4;
    my @answer = let_go(@held);
    my %pids = map { told($_, 'pid') => 1 } @answer;
    is keys %pids, 4, 'four requests at once have four';
    is_deeply [map { told($_, 'same') } @answer], [(1) x 4], '... and keep them';
    return;
}

for my $mpm (mpms()) {
    subtest $mpm => sub {
        my $httpd = probed(pool('mpm', 'PgPoolMax 4', 'PgPoolAcquireTimeout 60s',
            "ErrorDocument 404 @{[probe_at('acquire')]}"), mpm => $mpm, threads => 4);
        one_request_has_one($httpd);
        no_two_have_the_same($httpd);
        $httpd->stop;
    };
}

# ---- the rest on one MPM

my $httpd = probed(join "\n",
    pool('default', 'PgPoolMax 4', 'PgPoolAcquireTimeout 60s'),
    in_pool('a'), in_pool('b'),
    in_pool('one', 'PgPoolMax 1'),
    in_pool('brief', 'PgPoolMax 1', 'PgPoolAcquireTimeout 200ms'),
    in_pool('now', 'PgPoolMax 1', 'PgPoolAcquireTimeout 0'),
    in_pool('few', 'PgPoolMax 1', 'PgPoolMaxWaiters 1'),
    '<Location /probe/a>', 'PgPoolUse a', '</Location>',
    '<Location /probe/a/b>', 'PgPoolUse b', '</Location>',
    "<VirtualHost *>\nServerName main\n</VirtualHost>",
    "<VirtualHost *>\nServerName uses-b\nPgPoolUse b\n</VirtualHost>");

# The note of a request's lease, and its two parts: the backend's pid and the number of the lease.
sub lease {
    my ($answer, $which) = @_;
    my $note = told_all($answer, 'note.pgpool-one')->[$which // 0] // 'none';
    my ($pid, $number) = $note =~ m{\Aone/(\d+)/(\d+)\z} or fail "the lease is $note";
    return ($note, $pid, $number);
}

subtest 'notes' => sub {
    my $answer = probe($httpd, qw(acquire=one notes));
    my ($note, $pid) = lease($answer);
    is $pid, told($answer, 'pid'), 'the lease has the pid of the backend';
    like told($answer, 'note.pgpool-one-wait'), qr/^\d+$/, 'the wait is a number';

    $answer = probe($httpd, redirect(qw(acquire=one notes)));
    ($note) = lease($answer);
    is told($answer, 'initial.pgpool-one'), $note, 'after a redirect on the initial request as well';
    is told($answer, 'initial.pgpool-one-wait'), told($answer, 'note.pgpool-one-wait'),
        '... also the wait';

    $answer = probe($httpd, subrequest(qw(acquire=one notes)), 'notes');
    is_deeply told_all($answer, 'note.pgpool-one'), [((lease($answer))[0]) x 2],
        'of a subrequest on its request as well';

    $answer = probe($httpd, qw(acquire=none notes));
    like told($answer, 'note.pgpool-error'), qr/^pool none: there is no such pool/, 'an error';
    $answer = probe($httpd, redirect(qw(acquire=none notes)));
    is told($answer, 'initial.pgpool-error'), told($answer, 'note.pgpool-error'),
        '... also on the initial request';
};

subtest 'the lease in the access log' => sub {
    my @way = ([], [redirect('acquire', 'notes')]);
    for my $way (@way) {
        my $answer = probe($httpd, 'acquire', 'notes', @$way);
        my $note = quotemeta told($answer, 'note.pgpool-default');
        ok poll_until { $httpd->access_log =~ /" 200 \d+ $note$/m },
            @$way ? 'of a redirected request' : 'of a plain one';
    }
};

subtest 'release' => sub {
    my $answer = probe($httpd, qw(acquire=one notes release acquire=one notes));
    tells $answer, { status => [0, 0] }, 'acquire, release, acquire';
    my ($first, $second) = map { (lease($answer, $_))[2] } 0, 1;
    cmp_ok $second, '>', $first, '... the second is a new lease';

    my $held = hold($httpd, qw(acquire=one release gate acquire=one));
    tells probe($httpd, 'acquire=one'), { status => 0 }, 'another request can have it';
    tells let_go($held), { status => [0, 0] }, '... and the first one again';

    $held = hold($httpd, 'acquire=one', subrequest('release=one'), 'gate');
    tells probe($httpd, 'acquire=one'), { status => 0 }, 'a subrequest gives back for all';
    let_go($held);

    tells probe($httpd, qw(release=one release=none release acquire=one)), { status => 0 },
        'without a pin it does nothing';
};

# The pool of the last acquire's or open's connection.
my $whose = 'sql=SHOW application_name';

subtest 'two pools in one request' => sub {
    my @ask = ('acquire=a', $whose, 'acquire=b', $whose);
    my $answer = probe($httpd, @ask, subrequest(@ask), redirect(@ask));
    is_deeply told_all($answer, 'value'), [qw(a b) x 3], 'each by its name';
    my ($of_a, $of_b) = @{ told_all($answer, 'pid') };
    is_deeply told_all($answer, 'pid'), [($of_a, $of_b) x 3], '... and each stays the same';
};

subtest 'PgPoolUse' => sub {
    my @case = (
        ['nowhere'               => '/probe',     'main',   'acquire',         'default'],
        ['here'                  => '/probe/a',   'main',   'acquire',         'a'],
        ['below'                 => '/probe/a/c', 'main',   'acquire',         'a'],
        ['another below'         => '/probe/a/b', 'main',   'acquire',         'b'],
        ['in the server'         => '/probe',     'uses-b', 'acquire',         'b'],
        ['a name goes first'     => '/probe/a',   'uses-b', 'acquire=default', 'default'],
        ['open: the server\'s'   => '/probe/a',   'uses-b', 'open',            'b'],
        ['open: without one'     => '/probe/a',   'main',   'open',            'default'],
    );
    for (@case) {
        my ($name, $path, $server, $command, $expected) = @$_;
        my $query = probe_at($command, $whose) =~ s{^/probe}{$path}r;
        my $answer = $httpd->begin($query, headers => { Host => $server })->finish;
        tells $answer, { value => $expected }, $name;
    }
    my $there = subrequest('acquire', $whose) =~ s{/probe}{/probe/a}r;
    tells probe($httpd, 'acquire', $whose, $there), { value => [qw(default a)] },
        'a subrequest uses the pool of its own location';
};

subtest 'open and close' => sub {
    my $answer = probe($httpd, qw(acquire=a open=a));
    my ($pinned, $opened) = @{ told_all($answer, 'pid') };
    isnt $opened, $pinned, 'not the connection that is pinned to the request';
    # The pool has one connection: without a return the next open would be refused.
    for my $end (qw(close destroy)) {
        tells probe($httpd, 'open=one', $end, 'open=one'), { status => [0, 0] }, "$end ends it";
    }
    tells probe($httpd, 'acquire=one'), { status => 0 }, '... otherwise the end of the APR pool returns it';
    all_back('brief');
    tells probe($httpd, qw(open=brief acquire=brief close acquire=one)),
        { status => [0, 'EEXHAUSTED', 0] }, 'it counts as in use; close without a connection does nothing';
};

# ---- errors if there is no connection

# Wait until no connection of a pool is in use: an answer may arrive before its request's connection
# was returned.
sub all_back {
    my ($name) = @_;
    return poll_until {
        log_lines(0, qr/PGP1001: pool $name,/)
            && log_lines(0, qr/PGP1004: pool $name,/) == log_lines(0, qr/PGP1005: pool $name,/);
    } || die "somebody still has a connection of pool $name\n";
}

sub hold_one {
    my ($name, @command) = @_;
    all_back($name);
    return hold($httpd, "acquire=$name", @command);
}

sub log_lines {
    my ($from, $pattern) = @_;
    return scalar(() = $httpd->error_log($from) =~ /$pattern/g);
}

subtest 'no such pool' => sub {
    my $from = $httpd->log_end;
    my $answer = probe($httpd, qw(acquire=none strerror));
    tells $answer, { status => 'ENOPOOL',
        strerror => 'no pool of that name is configured for this server' }, 'ENOPOOL';
    is log_lines($from, qr/PGP1011: pool none: there is no such pool in this server/), 1, 'logged';
    $answer = probe($httpd, qw(acquire=none httpstatus));
    is $answer->{status}, 500, '... is 500';
    ok !$answer->{headers}{'retry-after'}, '... without Retry-After';
    tells probe($httpd, 'open=none'), { status => 'ENOPOOL' }, 'open says the same';
};

subtest 'exhausted' => sub {
    my $held = hold_one('brief');
    my $from = $httpd->log_end;
    my $answer = probe($httpd, qw(acquire=brief strerror notes));
    tells $answer, { status => 'EEXHAUSTED',
        strerror => 'all connections stayed in use until the deadline' }, 'EEXHAUSTED';
    cmp_ok told($answer, 'waited'), '>=', 200_000, '... no sooner than PgPoolAcquireTimeout';
    cmp_ok told($answer, 'note.pgpool-brief-wait'), '>=', 200_000, '... a note has the wait';
    my $cause = qr/all connections stayed in use.*: all 1 connections are in use \(PgPoolMax 1\)/;
    like told($answer, 'note.pgpool-error'), $cause, '... and another the cause';
    is log_lines($from, qr/PGP1011: pool brief: $cause.*waited \d+ ms/), 1, '... and the log';

    $answer = probe($httpd, qw(acquire=brief httpstatus));
    is $answer->{status}, 503, '... is 503';
    is $answer->{headers}{'retry-after'}, 1, '... with Retry-After';
    tells probe($httpd, 'open=brief'), { status => 'EEXHAUSTED' }, 'open says the same';
    tells let_go($held), { status => 0 }, 'the borrower noticed nothing';
    all_back('brief');
    tells probe($httpd, 'acquire=brief'), { status => 0 }, '... and then the next request gets it';
};

subtest 'a failure is remembered for a moment' => sub {
    my $held = hold_one('brief');
    my $from = $httpd->log_end;
    tells probe($httpd, qw(acquire=brief acquire=brief), subrequest('acquire=brief')),
        { status => [('EEXHAUSTED') x 3] }, 'three acquires in one request';
    is log_lines($from, qr/PGP1011/), 1, '... it has failed once';

    my $asks = hold($httpd, qw(acquire=brief gate sleep=1.1 acquire=brief));
    let_go($held);
    tells let_go($asks), { status => ['EEXHAUSTED', 0] }, 'it does not last';
};

subtest 'no wait at all' => sub {
    my $held = hold_one('now');
    my $answer = probe($httpd, qw(acquire=now notes));
    tells $answer, { status => 'EEXHAUSTED', 'note.pgpool-now-wait' => 0 }, 'refused at once';
    let_go($held);
};

subtest 'no more than PgPoolMaxWaiters wait' => sub {
    my $held = hold_one('few');
    my @asking = map { $httpd->begin(probe_at('acquire=few')) } 1 .. 4;
    my $select = IO::Select->new(map { $_->{socket} } @asking);
    ok poll_until { $select->can_read(0) == 3 }, 'three of four have an answer';
    let_go($held);
    my @status = sort map { told($_, 'status') } finish(@asking);
    is_deeply \@status, [0, ('EEXHAUSTED') x 3], '... and one has the connection';
};
$httpd->stop;

# ---- hooks

# How often the hooks have run: connect, attach.
sub hooks_ran {
    my ($hooked) = @_;
    my $answer = probe($hooked, 'hooks');
    return [map { told($answer, $_) } qw(connect attach)];
}

subtest 'hooks' => sub {
    my $hooked = probed(pool('hooked', 'PgPoolMax 1', 'PgPoolMin 0', 'PgPoolAcquireTimeout 60s'));
    is_deeply hooks_ran($hooked), [0, 0], 'before the first acquire';
    my $die = 'sql=SELECT pg_terminate_backend(pg_backend_pid())';
    my @case = (
        ['the first time'         => 1, 1, 'acquire'],
        ['pinned already'         => 1, 2, qw(acquire again), subrequest('acquire')],
        ['pinned again'           => 1, 4, qw(acquire release acquire)],
        ['no request'             => 1, 4, 'open'],
        ['another connection'     => 2, 6, 'acquire', $die, qw(acquire acquire)],
        ['another for no request' => 3, 7, 'acquire', $die, qw(release open)],
    );
    for (@case) {
        my ($name, $connect, $attach, @command) = @$_;
        my $answer = probe($hooked, @command);
        is_deeply hooks_ran($hooked), [$connect, $attach], $name or diag $answer->{content};
    }
    $hooked->stop;
};

subtest 'hooks that refuse' => sub {
    for my $hook (qw(connect attach)) {
        my $hooked = probed(pool('refused', 'PgPoolMin 0', "PgPoolProbeHook $hook fail"));
        my $from = $hooked->log_end;
        my $answer = probe($hooked, qw(acquire notes));
        my $cause = qr/the $hook hook of a module refused backend \d+/;
        tells $answer, { status => 'EUNAVAIL' }, "$hook: EUNAVAIL";
        like told($answer, 'note.pgpool-error'), $cause, '... a note says why';
        like $hooked->error_log($from), qr/PGP1011: .*$cause/, '... and the log';
        ok poll_until { backends($pg, 'refused') == 0 }, '... the connection is closed';
        $answer = probe($hooked, qw(acquire httpstatus));
        is $answer->{status}, 503, '... is 503';
        ok $answer->{headers}{'retry-after'}, '... with Retry-After';
        tells probe($hooked, 'open'), { status => $hook eq 'attach' ? 0 : 'EUNAVAIL' },
            '... open does' . ($hook eq 'attach' ? ' not run it' : ' the same');
        $hooked->stop;
    }
};

# The handler's statements would be part of that transaction, and would be rolled back at the
# return; or its text would be misread.
my %left = (begin => 'left a transaction', encode => 'changed client_encoding');
subtest 'hooks that leave a connection in another state' => sub {
    for (map { my $hook = $_; map { [$hook, $_] } sort keys %left } qw(connect attach)) {
        my ($hook, $mode) = @$_;
        my $hooked = probed(pool('left', 'PgPoolMin 0', "PgPoolProbeHook $hook $mode"));
        my $from = $hooked->log_end;
        tells probe($hooked, 'acquire', 'state'), { status => 'EUNAVAIL', noconn => 'state' }, "$hook, $mode: EUNAVAIL";
        like $hooked->error_log($from), qr/PGP1011: .*the $hook hook of a module has $left{$mode} .* backend \d+/,
            '... the log says why';
        ok poll_until { backends($pg, 'left') == 0 }, '... the connection is closed';
        $hooked->stop;
    }
};

subtest 'a hook that acquires' => sub {
    my $hooked = probed(pool('again', "PgPoolMax 3\nPgPoolAcquireTimeout 60s", 'PgPoolProbeHook attach acquire'));
    for (1 .. 2) {
        tells probe($hooked, 'acquire', 'sql=SELECT 7', 'hooks'), { status => 0, value => 7, attach => $_ },
            'gets nothing, and the request its connection';
    }
    like $hooked->error_log, qr/PGP1011: .*pool default: a hook of a module has acquired again/, 'the log says why';
    $hooked->stop;
    ok poll_until { backends($pg, 'again') == 0 }, 'all connections come back';
};

subtest 'hooks in which the connection is lost' => sub {
    for my $hook (qw(connect attach)) {
        my $hooked = probed(pool('lost', 'PgPoolAcquireTimeout 60s', "PgPoolProbeHook $hook lose"));
        tells probe($hooked, 'acquire', 'sql=SELECT 42'), { status => 0, value => 42 }, "$hook: the request gets another connection";
        $hooked->stop;
    }
};

# ---- many clients

# A client sets its name in the session, sleeps, and must find its name again.
sub one_of_a_crowd {
    my ($crowd, $name, $seconds) = @_;
    return $crowd->begin(probe_at('acquire',
        "sql=SELECT set_config('probe.client', '$name', false)",
        "sql=SELECT pg_sleep($seconds)", 'sql=SHOW probe.client'));
}

for my $mpm (grep { $_ ne 'prefork' } mpms()) {
    subtest "40 clients over 4 connections: $mpm" => sub {
        my $crowd = probed(pool('crowd', 'PgPoolMax 4', 'PgPoolAcquireTimeout 60s'),
            mpm => $mpm, threads => 44);
        for my $seconds (0, 0.001, 0.02) {
            my @answer = finish(map { one_of_a_crowd($crowd, $_, $seconds) } 1 .. 40);
            is_deeply [map { told($_, 'status') } @answer], [(0) x 40], "$seconds s: all served";
            is_deeply [map { told_all($_, 'value')->[2] } @answer], [1 .. 40], '... each with its own session';
            my %pids = map { told($_, 'pid') => 1 } @answer;
            cmp_ok keys %pids, '<=', 4, '... by no more than PgPoolMax connections';
        }
        $crowd->stop;
    };
}

done_testing;
