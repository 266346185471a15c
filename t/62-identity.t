#!/usr/bin/perl

# PgPoolSet sets session variables to properties of the request, such as its user.  They are values,
# never SQL; each acquire sets those of the request that acquires; they reach no other request.

use PgPoolTest;
use Crowd;
use Digest::SHA qw(sha1_base64);
use Encode qw(encode_utf8);
use MIME::Base64 qw(encode_base64);
use Probe;

my $pg = postgres;
query($pg, $_) for 'CREATE ROLE web LOGIN', 'CREATE ROLE alice', 'CREATE ROLE bob', 'CREATE ROLE carol',
    'CREATE ROLE dave', 'GRANT alice, bob, carol, dave TO web',
    'CREATE TABLE note (owner text, body text)', 'GRANT SELECT ON note TO PUBLIC',
    'ALTER TABLE note ENABLE ROW LEVEL SECURITY',
    q(CREATE POLICY mine ON note USING (owner = current_setting('app.user', true))),
    q(INSERT INTO note SELECT o, o || i FROM generate_series(1, 3) i, unnest(ARRAY['alice', 'bob']) o);

# ---- configuration

# A <Location> section with these lines.
sub location {
    my ($path, @line) = @_;
    return join "\n", "<Location $path>", @line, "</Location>\n";
}

my @login = ('AuthType Basic', 'AuthName test', 'AuthUserFile ${DIR}/passwd', 'Require valid-user');
my $user = 'PgPoolSet app.user "%{REMOTE_USER}"';
my $notes = 'PgPoolQuery "SELECT owner, body FROM note ORDER BY body"';
my @modes = qw(session all auto transaction);

# Init SQL, which a reset runs again; it must be able to write.
my @init = map { qq(PgPoolInitSQL "$_") } q(SET app.value = 'of the pool'), 'PREPARE kept AS SELECT 1',
    'CREATE TEMP TABLE IF NOT EXISTS kept (i int)';

my $conninfo = conninfo($pg, user => 'web', client_encoding => 'UTF8');
my $conf = join "\n", "PgPoolConninfo \"$conninfo\"", 'PgPoolMin 1', 'PgPoolMax 1', 'PgPoolAcquireTimeout 60s',
    'PgPoolCheckTimeout 60s', 'PgPoolSet app.server "of the server"', 'PgPoolSet app.outer "of the server"',
    'KeepAliveTimeout 60', 'MaxKeepAliveRequests 0',
    map({ "<PgPool $_>\nPgPoolReset $_\n</PgPool>" } @modes),
    map({ join "\n", "<PgPool init-$_>", "PgPoolReset $_", @init, '</PgPool>' } @modes),
    "<PgPool primary>\nPgPoolConninfo \"$conninfo target_session_attrs=read-write\"\n</PgPool>",
    "<PgPool hurried>\nPgPoolCheckTimeout 300ms\n</PgPool>",
    map({ "<PgPool crowd-$_>\nPgPoolReset $_\nPgPoolMax 3\n</PgPool>" } @modes),
    location('/probe/outer', 'PgPoolSet app.outer "of the section"', 'PgPoolSet app.inner "of the section"'),
    location('/probe/outer/inner', 'PgPoolSet App.Inner "of the inner section"', 'PgPoolSet app.method "%{REQUEST_METHOD}"'),
    location('/probe/value', 'PgPoolSet app.value "%{HTTP:X-Value}"', 'PgPoolSet default_transaction_read_only on'),
    location('/probe/value/more', 'PgPoolSet app.more "more"'),
    location('/probe/other', 'PgPoolSet app.value "another"'),
    location('/probe/role', 'PgPoolSet role "%{HTTP:X-Value}"'),
    location('/probe/name', 'PgPoolSet no_such_setting 1'),
    location('/probe/work_mem', 'PgPoolSet app.value "before it"', 'PgPoolSet work_mem "%{HTTP:X-Value}"'),
    location('/probe/expression', 'PgPoolSet app.value "%{file:/no/such/file}"'),
    location('/probe/user', @login, $user, q(PgPoolProbeEarly "SELECT current_setting('app.user', true)")),
    map({
        location("/notes/$_", 'SetHandler pgpool-query', $notes, "PgPoolUse crowd-$_", @login, $user),
        location("/open/$_", 'SetHandler pgpool-query', $notes, "PgPoolUse crowd-$_"),
        location("/probe/forge/$_", "PgPoolUse crowd-$_"),
    } @modes),
    '<Directory "${DIR}/htdocs">', 'AllowOverride All', "</Directory>\n";

my $httpd = Httpd->new(conf => $conf . location('/probe', 'SetHandler pgpool-probe'), threads => 8,
    modules => [qw(pgpool pgpool_query pgpool_probe auth_basic authn_file authz_user)]);
Httpd::spew($httpd->dir . '/passwd', join '', map { "$_:{SHA}" . sha1_base64("$_ secret") . "=\n" } qw(alice bob));
$httpd->start;

# ---- requests

# The path of a probe in this section.
sub at {
    my ($section, @command) = @_;
    return probe_at(@command) =~ s{^/probe}{/probe/$section}r;
}

sub ask {
    my ($path, %header) = @_;
    return scalar $httpd->begin($path, headers => \%header)->finish;
}

sub login {
    my ($name, $password) = @_;
    return (Authorization => 'Basic ' . encode_base64("$name:" . ($password // "$name secret"), ''));
}

# The probe's command that reads a setting; "none" if it was never set.
sub setting {
    my ($name) = @_;
    return "sql=SELECT coalesce(current_setting('$name', true), 'none')";
}

sub value_is {
    my ($path, $expected, $name) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my $answer = ask($path);
    return is(told_all($answer, 'value')->[-1], $expected, $name) || diag $answer->{content};
}

# ---- sections

subtest 'sections are merged' => sub {
    my @names = map { setting("app.$_") } qw(server outer inner method);
    my %expected = (
        none            => ['of the server', 'of the server', 'none', 'none'],
        outer           => ['of the server', 'of the section', 'of the section', 'none'],
        'outer/inner'   => ['of the server', 'of the section', 'of the inner section', 'GET'],
    );
    for my $section (sort keys %expected) {
        my $got = told_all(ask(at($section, 'acquire', @names)), 'value');
        s/^$/none/ for @$got;
        is_deeply $got, $expected{$section}, $section;
    }
};

subtest 'not in .htaccess' => sub {
    mkdir $httpd->dir . '/htdocs/sub';
    $httpd->put_file('sub/.htaccess', "$user\n");
    my $from = $httpd->log_end;
    is ask('/sub/any')->{status}, 500, 'refused';
    like $httpd->error_log($from), qr/PgPoolSet not allowed here/, '... and the log says why';
};

# ---- values

my @texts = (
    'plain', ' ', 'it\'s', '"quoted"', 'back\\slash', '\\\'; SELECT pg_sleep(600); --', q{'); DROP TABLE note; --},
    q{x', true), set_config('app.server', 'forged}, q{$1 $2 $$dollar$$ %{HTTP_HOST} %s}, q{E'\\x00'}, '%00', '\\0',
    encode_utf8("snow \x{2603}, face \x{1F600}"), join('', map { chr } 1 .. 8, 14 .. 31), 'x' x 8000,
);

subtest 'values are values' => sub {
    # httpd itself removes blanks at the ends of a header, and refuses control characters.
    for my $text (grep { !/[\x01-\x1F]/ } @texts) {
        my $answer = ask(at('value', 'acquire', setting('app.value'), setting('app.server')), 'X-Value' => $text);
        is_deeply told_all($answer, 'value'), [$text =~ s/^ $//r, 'of the server'], substr $text, 0, 40;
    }
    value_is(at('value', 'acquire', setting('app.value')), '', 'an absent header is empty');
    is query($pg, 'SELECT count(*) FROM note'), 6, 'no value was run as SQL';
};

subtest 'a role' => sub {
    my @who = ('acquire', 'sql=SELECT current_user');
    for my $name (qw(alice bob)) {
        is told(ask(at('role', @who), 'X-Value' => $name), 'value'), $name, $name;
        is told(ask(at('none', @who)), 'value'), 'web', '... is gone with the request';
    }
    is told(ask(at('role', 'acquire'), 'X-Value' => 'postgres'), 'status'), 'EUNAVAIL', 'a role that is not allowed';
};

# ---- at each acquire

subtest 'before and after authentication' => sub {
    for my $name (qw(alice bob alice)) {
        my $answer = ask(at('user', qw(early acquire), setting('app.user')), login($name));
        tells $answer, { early => 0, 'early.value' => '', status => 0, value => $name }, "$name, after nobody";
        is told($answer, 'pid'), told($answer, 'early.pid'), '... on one connection';
    }
    is ask(at('user', qw(early acquire)), login('alice', 'wrong'))->{status}, 401, 'a wrong password';
    value_is(at('none', 'acquire', setting('app.user')), '', '... leaves nothing behind');
};

subtest 'from section to section in one request' => sub {
    my @ask = ('acquire', setting('app.value'));
    my $other = at('other', @ask);
    my $plain = at('none', @ask);
    my @cases = (
        ['a redirect'              => ['mine', 'another'], "redirect=$other"],
        ['... where nothing is set' => ['mine', ''], "redirect=$plain"],
        ['a subrequest, and back'  => ['mine', 'another', 'mine'], "subreq=$other", @ask],
        ['... where nothing is set' => ['mine', '', 'mine'], "subreq=$plain", @ask],
        ['after a release'         => ['mine', 'mine'], 'release', @ask],
        ['over a transaction'      => ['mine', '', 'mine', ''], 'sql=BEGIN', @ask, 'sql=COMMIT'],
    );
    for (@cases) {
        my ($name, $expected, @command) = @$_;
        my $answer = ask(at('value', @ask, @command), 'X-Value' => 'mine');
        my $pids = told_all($answer, 'pid');
        is_deeply [grep { $_ ne '' } @{ told_all($answer, 'value') }], [grep { $_ ne '' } @$expected], $name
            or diag $answer->{content};
        is_deeply $pids, [($pids->[0]) x @$pids], '... on one connection';
    }
};

# The next acquire sets the variables on the new connection.
subtest 'over a lost connection' => sub {
    my $answer = ask(at('value', 'acquire', 'sql=SELECT pg_terminate_backend(pg_backend_pid())', 'acquire', 'acquire',
        setting('app.value')), 'X-Value' => 'mine');
    is_deeply told_all($answer, 'status'), ['0', 'ELOST', '0'], 'the request gets another connection';
    is told($answer, 'value'), 'mine', '... with its variables' or diag $answer->{content};
};

# A setting made in a transaction would be lost with it.
subtest 'not within a transaction' => sub {
    my $from = $httpd->log_end;
    my $answer = ask(at('value', 'acquire', 'sql=BEGIN', 'subreq=' . at('other', 'acquire'), 'state',
        setting('app.value')), 'X-Value' => 'mine');
    is_deeply told_all($answer, 'status'), ['0', 'EUNAVAIL'], 'another value is refused';
    tells $answer, { tx => 'INTRANS', value => 'mine' }, '... the transaction goes on with its own value';
    like $httpd->error_log($from), qr/PGP1015: .*cannot be changed within a transaction/, '... the log says why';
};

# ---- undone

my @dirt = ('', 'sql=SELECT 1', 'sql=BEGIN', 'send=SELECT pg_sleep(600)', q(sql=SET app.value = 'forged'),
    q(sql=BEGIN; SET LOCAL app.value = 'forged'), 'sql=SELECT 1/0', 'pipeline=SELECT 1');

sub endings {
    my ($pool) = @_;
    return ('', 'release', 'fail=500', 'abort', map { 'redirect=' . at($_, "acquire=$pool") } 'other', 'value/more');
}

sub is_undone {
    my ($pool, $clean) = @_;
    my $look = at('none', "acquire=$pool", setting('app.value'));
    my $pid = told(ask($look), 'pid');
    my (%got, $leaves);
    for my $dirt (@dirt) {
        next if $dirt =~ /forged/ && $pool =~ /transaction/ && $dirt !~ /LOCAL/;
        for my $ending (endings($pool)) {
            ask(at('value', "acquire=$pool", grep { $_ ne '' } $dirt, $ending), 'X-Value' => 'mine');
            my $answer = ask($look);
            $got{"$dirt, $ending"} = [told($answer, 'pid'), told($answer, 'value')];
        }
    }
    is_deeply \%got, { map { $_ => [$pid, $clean] } keys %got }, $pool;
    return;
}

subtest 'undone with each PgPoolReset' => sub {
    is_undone($_, '') for @modes;
    is_undone("init-$_", 'of the pool') for @modes;
};

# The pool closes a connection to a primary that has become read-only; but not if the request has
# set that.
subtest 'read-only on a primary' => sub {
    my @ask = ('acquire=primary', 'sql=SHOW default_transaction_read_only');
    my $pid = told(ask(at('none', @ask)), 'pid');
    for (1 .. 3) {
        tells ask(at('value', @ask, 'subreq=' . at('other', @ask), @ask)),
            { status => [0, 0, 0], pid => [($pid) x 3], value => [qw(on off on)] }, 'a section sets it';
        tells ask(at('value', 'acquire=primary', 'sql=CREATE TEMP TABLE t ()')), { pid => $pid, sqlstate => '25006' },
            '... and the server obeys';
        tells ask(at('none', @ask)), { pid => $pid, value => 'off' }, '... and others do not have it';
    }
};

# ---- variables that cannot be set

sub connected {
    my ($from) = @_;
    return scalar(() = $httpd->error_log($from) =~ /PGP1001/g);
}

my @refused = (
    ['an unknown name' => 'name', qr/PGP1015: pool default: PgPoolSet: unrecognized configuration parameter "no_such_setting" \(SQLSTATE 42704\)/],
    ['a bad value' => 'work_mem', qr/PGP1015: .*: invalid value for parameter "work_mem": "lots" \(SQLSTATE 22023\)/, 'lots'],
    ['... in another encoding'  => 'value', qr/PGP1015: .*: invalid byte sequence for encoding "UTF8": 0xff \(SQLSTATE 22021\)/, "\xFF", 400],
    ['an expression that fails' => 'expression', qr{PGP1015: PgPoolSet app\.value: Cannot open file /no/such/file}],
);

subtest 'variables that cannot be set' => sub {
    my $pid = told(ask(at('none', 'acquire')), 'pid');
    my $from = $httpd->log_end;
    for (@refused) {
        my ($name, $section, $log, $value, $status) = @$_;
        $status //= 503;
        my $begin = $httpd->log_end;
        my @answer = map { ask(at($section, qw(acquire httpstatus)), 'X-Value' => $value // '') } 1 .. 20;
        is_deeply [map { $_->{status} } @answer], [($status) x 20], "$name: $status";
        is !!$answer[0]{headers}{'retry-after'}, $status == 503, '... and whether to try again';
        like $httpd->error_log($begin), $log, '... the log has the cause';
        my $answer = ask(at('none', 'acquire', setting('app.value')));
        tells $answer, { pid => $pid, value => '' }, '... the connection stays, without that variable';
    }
    is connected($from), 0, 'no new connection was made';
};

subtest 'a failure in one section does not affect another in the same request' => sub {
    for my $section (qw(name expression)) {
        my $answer = ask(at('value', 'subreq=' . at($section, 'acquire'), 'acquire', setting('app.value')), 'X-Value' => 'mine');
        is_deeply told_all($answer, 'status'), ['EUNAVAIL', '0'], "before: $section";
        is told($answer, 'value'), 'mine', '... it is set';
        $answer = ask(at('value', 'acquire', 'subreq=' . at($section, 'acquire'), setting('app.value'), 'again',
            setting('app.value')), 'X-Value' => 'mine');
        is_deeply told_all($answer, 'status'), ['0', 'EUNAVAIL'], "meanwhile: $section";
        tells $answer, { value => ['mine', 'mine'], again => 0, same => 1 }, '... the request goes on with its own value';
    }
};

# Lock pg_authid: a backend that looks up a role for the first time waits for it.
sub lock_roles {
    my $locker = $pg->background_psql('postgres');
    $locker->query_safe('SELECT FROM pg_stat_activity, pg_locks LIMIT 1');
    $locker->query_safe('BEGIN; LOCK TABLE pg_authid IN ACCESS EXCLUSIVE MODE');
    return $locker;
}

# Wait until a backend waits for that lock, and run SQL, which may use its pid (waits).
sub waits_for_lock {
    my ($locker, $do) = @_;
    $locker->query_safe("DO \$\$
        DECLARE waits int;
        BEGIN
            FOR i IN 1 .. 600 LOOP
                SELECT pid INTO waits FROM pg_locks WHERE NOT granted;
                EXIT WHEN waits IS NOT NULL;
                PERFORM pg_sleep(0.05);
            END LOOP;
            $do
        END \$\$");
    return;
}

subtest 'a connection that is ended meanwhile' => sub {
    my $locker = lock_roles();
    my $pending = $httpd->begin(at('role', 'acquire', 'sql=SELECT current_user'), headers => { 'X-Value' => 'carol' });
    waits_for_lock($locker, 'PERFORM pg_terminate_backend(waits);');
    $locker->query_safe('COMMIT');
    $locker->quit;
    tells $pending->finish, { status => 0, value => 'carol' }, 'the request gets another connection';
};

# The server may set the inner request's role after the deadline, when the outer handler goes on.
subtest 'a server that is late' => sub {
    my $locker = lock_roles();
    my $gate = $httpd->dir . '/late';
    my $pending = $httpd->begin(at('value', 'acquire=hurried', setting('app.value'),
        'subreq=' . at('role', 'acquire=hurried'), "touch=$gate.reached", "hold=$gate", 'sql=SELECT current_user'),
        headers => { 'X-Value' => 'dave' });
    ok poll_until { -e "$gate.reached" }, 'the outer handler goes on without the answer';
    $locker->query_safe('COMMIT');
    $locker->quit;
    Httpd::spew($gate, '');
    my $answer = $pending->finish;
    is_deeply told_all($answer, 'status'), ['0', 'ELOST'], '... the inner handler gets ELOST';
    is_deeply told_all($answer, 'value'), ['dave'], '... and the outer handler does not run as another role' or diag $answer->{content};
};

# ---- end to end

my %rows = map { my $o = $_; $o => '[' . join(', ', map { qq({"owner":"$o","body":"$o$_"}) } 1 .. 3) . ']' } qw(alice bob);
$rows{nobody} = '[]';

# One request of a mix: path, status, the owner of its rows, headers.
sub mixed {
    my ($mode, $kind) = @_;
    return ("/notes/$mode", 200, $kind, login($kind))                      if $rows{$kind} && $kind ne 'nobody';
    return ("/open/$mode", 200, 'nobody')                                  if $kind eq 'nobody';
    return ("/notes/$mode", 401, undef, login('alice', 'wrong'))           if $kind eq 'wrong';
    return (at('user', "acquire=crowd-$mode"), 200, undef, login('bob'))   if $kind eq 'early';
    return (at("forge/$mode", 'acquire', q(sql=SET app."user" = 'alice')), 200, undef);
}

# Clients send requests as different users by turns, each client in another order.  Returns how many
# they sent, and how many answers were wrong.
sub mix {
    my ($mode, $requests, @kind) = @_;
    return crowd(8, sub {
        my ($client, $number) = @_;
        my %seen = (asked => 0, wrong => 0);
        srand $number;
        for (1 .. $requests / 8) {
            my ($path, $status, $whose, %header) = mixed($mode, $kind[rand @kind]);
            my $got = $client->get($httpd->url($path), { headers => \%header });
            my $rows = $got->{content} =~ s/\s*\n\s*/ /gr;
            $seen{asked}++;
            $seen{wrong}++ if $got->{status} != $status || (defined $whose && $rows ne $rows{$whose} =~ s/, /, /gr);
        }
        return \%seen;
    });
}

subtest 'row-level security, two users, one pool' => sub {
    my @kind = qw(alice bob nobody wrong early forge);
    my $many = $ENV{PGPOOL_SANITIZE} ? 2_000 : 10_000;
    is_deeply mix('session', $many, @kind), { asked => $many, wrong => 0 }, "session: $many requests, no row of another";
    is_deeply mix($_, 800, @kind), { asked => 800, wrong => 0 }, "$_: the same" for qw(all auto);
    is_deeply mix('transaction', 800, grep { $_ ne 'forge' } @kind), { asked => 800, wrong => 0 }, 'transaction: the same';
    # In mode transaction a forged setting stays, so the test must see it.
    cmp_ok mix('transaction', 800, qw(nobody forge))->{wrong}, '>', 0, '... and the test sees a forged name';
};

done_testing;
