#!/usr/bin/perl

# The innermost running request owns the connection: the variables of a subrequest, a redirected
# request or a look-up are undone before the outer handler goes on, or the connection is shut down.
# Variables that a handler or a hook undoes are set again.

use PgPoolTest;
use MIME::Base64 qw(encode_base64);
use Probe;

my $pg = postgres;
query($pg, $_) for 'CREATE ROLE web LOGIN', 'CREATE ROLE base', 'CREATE ROLE lowly', 'CREATE ROLE alice',
    'GRANT base, lowly, alice TO web', 'GRANT SET ON PARAMETER log_min_messages TO web',
    'CREATE TABLE seen (who text)', 'GRANT INSERT, SELECT ON seen TO PUBLIC';

sub location {
    my ($path, @line) = @_;
    return join "\n", "<Location $path>", @line, "</Location>\n";
}

my @sections = (
    location('/probe/lowly', 'PgPoolSet role lowly'),
    location('/probe/alice', 'PgPoolSet role alice'),
    location('/probe/timed', 'PgPoolSet role lowly', 'PgPoolSet statement_timeout 5s'),
    location('/probe/early', 'PgPoolSet role alice', 'PgPoolProbeEarly "SELECT current_user"'),
    location('/probe/denied', 'PgPoolSet role alice', 'PgPoolProbeEarly "SELECT current_user"', 'Require all denied'),
    location('/probe/failing', 'PgPoolSet role lowly', 'ErrorDocument 500 /probe/alice?acquire&sql=SELECT+current_user'),
    location('/probe/named', 'PgPoolSet role "%{HTTP:X-Role}"'),
    location('/probe/authorized', 'PgPoolSet session_authorization "%{HTTP:X-Role}"'),
    location('/probe/none', 'PgPoolSet role none'),
    location('/probe/filtered', 'SetOutputFilter PGPOOL_PROBE'),
    location('/probe/loud', 'PgPoolSet log_min_messages error', 'PgPoolSet role lowly'),
    location('/probe/claimed', 'AuthType Basic', 'AuthName test', 'Require all granted', 'PgPoolSet app.user "%{REMOTE_USER}"'),
    '<Files "looked*">', 'PgPoolSet role alice', 'PgPoolProbeEarly "SELECT current_user"', "</Files>\n",
);
my $conf = join "\n", 'PgPoolConninfo "' . conninfo($pg, user => 'web') . '"', 'PgPoolMin 1', 'PgPoolMax 1',
    'PgPoolAcquireTimeout 60s', 'PgPoolCheckTimeout 60s',
    '<PgPool init>', 'PgPoolInitSQL "SET ROLE base"', 'PgPoolInitSQL "SET statement_timeout = \'77s\'"', '</PgPool>',
    '<PgPool bare>', 'PgPoolReset transaction', '</PgPool>', @sections;

# One thread: in prefork, several children would each have a connection.
my $httpd = probed($conf, threads => 1);
$httpd->put_file('looked-up', '');

# The path of a probe in a section, and the request for it.
sub at {
    my ($section, @command) = @_;
    return probe_at(@command) =~ s{^/probe}{/probe/$section}r;
}

sub ask {
    my ($section, @command) = @_;
    my %header = ref $command[-1] ? %{ pop @command } : ();
    return scalar $httpd->begin(at($section, @command), headers => \%header)->finish;
}

my $who = 'sql=SELECT current_user';

# The answers to the SQL of one request, in order; a test that all came from one connection.
sub roles_are {
    my ($answer, $expected, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @pid = @{ told_all($answer, 'pid') };
    my %pid = map { $_ => 1 } @pid;
    is_deeply told_all($answer, 'value'), $expected, $name or return diag $answer->{content};
    return is keys %pid, 1, '... on one connection';
}

# ---- the end of an inner request

subtest 'a subrequest' => sub {
    my $plain = at('plain', 'acquire', $who);
    my $alice = at('alice', 'acquire', $who);
    my @cases = (
        ['that sets nothing'           => [qw(lowly web lowly)], "subreq=$plain"],
        ['that sets another'           => [qw(lowly alice lowly)], "subreq=$alice"],
        ['one after the other'         => [qw(lowly alice web lowly)], "subreq=$alice", "subreq=$plain"],
        ['in a subrequest'             => [qw(lowly web alice web lowly)],
            'subreq=' . at('plain', 'acquire', $who, "subreq=$alice", $who)],
        ['in one that acquires nothing' => [qw(lowly alice lowly)], 'subreq=' . at('plain', "subreq=$alice")],
        ['of one in between that does not change it' => [qw(lowly lowly web lowly lowly)],
            'subreq=' . at('lowly', 'acquire', $who, "subreq=$plain", $who)],
        ['that redirects'              => [qw(lowly alice lowly)], 'subreq=' . at('plain', 'acquire', "redirect=$alice")],
        ['that gives the connection back, and takes another' => [qw(lowly web lowly)],
            'subreq=' . at('plain', 'acquire', 'release', 'acquire', $who), 'acquire'],
    );
    for (@cases) {
        my ($name, $expected, @command) = @$_;
        roles_are(ask('lowly', 'acquire', $who, @command, $who), $expected, $name);
    }
    roles_are(ask('lowly', "subreq=$alice", 'acquire', $who), [qw(alice lowly)], 'that comes first');
};

subtest 'a redirected request' => sub {
    query($pg, 'TRUNCATE seen');
    my $note = 'sql=INSERT INTO seen SELECT current_user';
    ask('lowly', 'acquire', $note, 'through=' . at('alice', 'acquire', $note), $note);
    is query($pg, "SELECT string_agg(who, ' ') FROM seen"), 'lowly alice lowly', 'the outer handler goes on as itself';
    my $answer = ask('failing', 'acquire', $who, 'fail=500');
    is $answer->{status}, 500, 'an ErrorDocument';
    is_deeply told_all($answer, 'value'), [qw(lowly alice)], '... has its own role' or diag $answer->{content};
    roles_are(ask('plain', 'acquire', $who), ['web'], '... and nothing is left of it');
};

subtest 'a look-up' => sub {
    my $answer = ask('lowly', 'acquire', $who, 'subreq=' . at('early', 'early'), $who);
    is told($answer, 'early.value'), 'alice', 'may acquire as another';
    is_deeply told_all($answer, 'value'), [qw(lowly lowly)], '... which ends with it';
    $answer = ask('lowly', 'acquire', $who, 'subreq=' . at('denied'), $who);
    is told($answer, 'subreq'), 403, 'also if it fails';
    is_deeply told_all($answer, 'value'), [qw(lowly lowly)], '... it ends';
    my $from = $httpd->log_end;
    $answer = ask('lowly', 'acquire', $who, 'lookfile=looked-up', $who);
    tells $answer, { early => 'EUNAVAIL', value => [qw(lowly lowly)] }, 'one whose end is not seen may not';
    like $httpd->error_log($from), qr/PGP1015: .*has the connection, and its settings cannot be changed for a request whose end is not seen/,
        '... and the log says why';
    tells ask('alice', 'acquire', 'lookfile=looked-up', $who), { early => 0, 'early.value' => 'alice', value => 'alice' },
        '... as long as it would change anything';
};

# A subrequest's content passes the filters of the outer request.
subtest 'a filter of the outer request' => sub {
    my $lowly = 'subreq=' . at('lowly', 'acquire', $who, 'flush', $who);
    my $plain = 'subreq=' . at('plain', 'acquire', $who, 'flush', $who);
    for (['that has the connection', 'acquire'], ['that has none yet']) {
        my ($name, @acquire) = @$_;
        my $from = $httpd->log_end;
        my $answer = ask('filtered', @acquire, $lowly, 'early', 'acquire', $who);
        is_deeply told_all($answer, 'value'), [qw(lowly lowly web)], "$name: the inner handler goes on as itself"
            or diag $answer->{content};
        is told($answer, 'filtered'), 'EUNAVAIL', '... the filter may not change who it is';
        like $httpd->error_log($from), qr/PGP1015: .*is in use by .*lowly.*, which runs inside this request/,
            '... and the log says why';
        $answer = ask('filtered', @acquire, $plain, 'early', 'acquire', $who);
        is_deeply told_all($answer, 'value'), [qw(web web web)], '... one that sets the same';
        is told($answer, 'filtered'), 0, '... shares the connection';
    }
};

subtest 'changes that an inner request leaves' => sub {
    my @undo = ('RESET ROLE', 'SET ROLE NONE', 'RESET ALL', 'DISCARD ALL', 'SET ROLE alice',
        q(DO $$BEGIN EXECUTE 'RESET ROLE'; END$$), q(SELECT FROM set_config('role', 'none', false)));
    for my $undo (@undo) {
        roles_are(ask('lowly', 'acquire', 'subreq=' . at('lowly', 'acquire', "sql=$undo"), $who), ['lowly'], $undo);
    }
    my $answer = ask('lowly', 'acquire', 'sql=BEGIN', 'subreq=' . at('lowly', 'acquire', 'sql=RESET ROLE'),
        $who, 'sql=ROLLBACK', $who);
    roles_are($answer, [qw(lowly lowly)], 'in a transaction of the outer one');
    $answer = ask('lowly', 'acquire', 'sql=BEGIN', 'subreq=' . at('lowly', 'acquire', 'sql=SELECT 1/0'),
        'sql=ROLLBACK', $who);
    roles_are($answer, ['lowly'], 'a failed statement in it does no harm');
    for (['alice', 'sql=BEGIN'], ['alice', 'send=SELECT pg_sleep(600)'], ['alice', 'pipeline=SELECT 1'],
        ['lowly', 'send=RESET ROLE'], ['lowly', 'pipeline=RESET ROLE']) {
        my ($section, $left) = @$_;
        my $from = $httpd->log_end;
        $answer = ask('lowly', 'acquire', 'subreq=' . at($section, 'acquire', $left), $who, 'acquire', 'acquire', $who);
        is_deeply told_all($answer, 'status'), [qw(0 0 ELOST 0)], "$left: the connection is shut down";
        is told_all($answer, 'value')->[-1], 'lowly', '... and the outer request keeps its role' or diag $answer->{content};
        like $httpd->error_log($from), qr/PGP1015: pool default: backend \d+ is shut down/, '... which the log shows';
    }
    $answer = ask('lowly', 'acquire', 'single=SELECT current_user', 'subreq=' . at('lowly', 'acquire'), 'result', 'result', 'again');
    tells $answer, { value => 'lowly', result => [qw(PGRES_SINGLE_TUPLE PGRES_TUPLES_OK none)], again => 0, same => 1 },
        'the outer one\'s own query goes on';
};

# ---- variables that were set may be gone

subtest 'undone by the handler' => sub {
    for my $undo ('DISCARD ALL', 'RESET ROLE', 'SET ROLE NONE', 'SET SESSION AUTHORIZATION DEFAULT',
        q(DO $$BEGIN EXECUTE 'RESET ROLE'; END$$)) {
        roles_are(ask('lowly', 'acquire', $who, "sql=$undo", $who, 'acquire', $who), [qw(lowly web lowly)], $undo);
    }
    roles_are(ask('lowly', 'acquire', 'sql=RESET ROLE', 'sql=BEGIN', 'acquire', $who, 'sql=ROLLBACK', 'acquire', $who),
        [qw(lowly lowly)], 'before a transaction that is rolled back');
    tells ask('lowly', 'acquire', 'sql=RESET ROLE', 'sql=BEGIN', 'sql=SELECT 1/0', 'acquire'), { status => [qw(0 EUNAVAIL)] },
        'if it cannot be set again, the acquire fails';
    tells ask('lowly', 'acquire', q(sql=SET client_encoding = 'LATIN1'), 'acquire'), { status => [qw(0 EUNAVAIL)] },
        '... also if the value would become another text';
    tells ask('plain', 'acquire', q(sql=SET app.own = '1'), 'pipeline=SELECT 1', 'acquire'), { status => [0, 0] },
        '... but not if there is nothing to set';
};

subtest 'taken back' => sub {
    my $set = "sql=SELECT current_user || ' ' || current_setting('statement_timeout')";
    my @ask = ('acquire=init', $set);
    my $plain = at('plain', @ask);
    roles_are(ask('timed', @ask, "subreq=$plain", $set), ['lowly 5s', 'base 77s', 'lowly 5s'], "to PgPoolInitSQL's values");
    roles_are(ask('timed', @ask, "redirect=$plain"), ['lowly 5s', 'base 77s'], '... after a redirect, too');
    roles_are(ask('plain', @ask), ['base 77s'], '... and at return');
    roles_are(ask('timed', 'acquire=init', 'sql=DISCARD ALL', @ask), ['lowly 5s'], 'DISCARD ALL: all are set again');
    roles_are(ask('plain', 'acquire=init', 'sql=DISCARD ALL', @ask), ['base 77s'], "... PgPoolInitSQL's as well");
    roles_are(ask('plain', 'acquire=init', "sql=$_", @ask), ['base 77s'], "... $_: they are set again, too")
        for 'RESET ROLE', 'RESET ALL', 'RESET statement_timeout';
    roles_are(ask('timed', 'acquire=init', 'sql=RESET ROLE', @ask), ['lowly 5s'], '... and those of PgPoolSet');
    roles_are(ask('plain', 'acquire=init', "sql=SET statement_timeout = '1s'", @ask), ['base 1s'],
        '... but a variable that a handler sets stays');
};

subtest 'variables that need rights are set before the role' => sub {
    my $from = $httpd->log_end;
    my $answer = ask('loud', 'acquire=bare', 'sql=SHOW log_min_messages');
    is told($answer, 'value'), 'error', 'a setting that the role may not set';
    tells ask('plain', 'acquire=bare', 'sql=SHOW log_min_messages'), { pid => told($answer, 'pid'), value => 'warning' },
        '... is undone nevertheless';
    roles_are(ask('loud', 'acquire=bare', 'subreq=' . at('alice', 'acquire=bare', $who), $who), [qw(alice lowly)],
        '... and set again');
    unlike $httpd->error_log($from), qr/PGP1006/, 'the connection is in order';
};

# ---- the login role

subtest 'the login role' => sub {
    for my $role ('none', 'NONE', 'None', 'web') {
        my $from = $httpd->log_end;
        tells ask('named', 'acquire', $who, { 'X-Role' => $role }), { status => 'EUNAVAIL' }, "$role: refused";
        like $httpd->error_log($from), qr/PGP1015: .*role: "$role" is the pool's own role/, '... the log says why';
    }
    roles_are(ask('named', 'acquire', $who, { 'X-Role' => 'alice' }), ['alice'], 'another is not');
    tells ask('authorized', 'acquire', $who, { 'X-Role' => 'web' }), { status => 'EUNAVAIL' }, 'nor as session_authorization';
    roles_are(ask('none', 'acquire', $who), ['web'], 'nor is a constant');
};

subtest 'a name that is only claimed' => sub {
    my $set = q(sql=SELECT current_setting('app.user'));
    my $answer = ask('claimed', 'acquire', $set, 'basicpw', 'acquire', $set, { Authorization => 'Basic ' . encode_base64('alice:x', '') });
    tells $answer, { user => 'alice', value => ['', ''] }, 'counts as none';
};

$httpd->stop;

# ---- hooks

for my $hook (qw(connect attach)) {
    subtest "a $hook hook that discards everything" => sub {
        my $discarding = probed("$conf\nPgPoolProbeHook $hook discard");
        my $first = $discarding->get(at('lowly', 'acquire', $who));
        is told($first, 'value'), 'lowly', 'the first acquire is not the login role' or diag $first->{content};
        is told($discarding->get(at('plain', 'acquire=init', $who)), 'value'), 'base', "... PgPoolInitSQL's role is back";
        $discarding->stop;
    };
}

done_testing;
