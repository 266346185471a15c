#!/usr/bin/perl

# The bridge (mod_pgpool_dbd): the five modules of httpd that use mod_dbd run over a pool,
# unmodified.  Also cases that mod_dbd handles badly: connections that died while idle, a key that
# is not found, a bad statement among good ones.

use PgPoolTest;
use Digest::SHA qw(sha1_base64);

my $pg = postgres;
query($pg, <<'SQL');
CREATE TABLE account (name text PRIMARY KEY, password text, page text, is_in boolean DEFAULT false);
CREATE TABLE member (name text, team text);
INSERT INTO member VALUES ('amy', 'red'), ('amy', 'blue'), ('bob', 'blue');
CREATE TABLE place (name text, target text);
INSERT INTO place VALUES ('home', '/hello.txt'), ('void', NULL);
CREATE TABLE session (key text PRIMARY KEY, value text, expiry bigint);
SQL
query($pg, "INSERT INTO account VALUES ('$_', '{SHA}@{[sha1_base64(\"secret of $_\")]}=', '/hello.txt')")
    for qw(amy bob);

my $conninfo = conninfo($pg);
my $conf = <<"CONF";
DBDriver pgsql
DBDParams "$conninfo"
DBDMin 1
DBDKeep 2
DBDMax 4
DBDExptime 60
DBDInitSQL "SET application_name = 'bridge'"
DBDPrepareSQL "SELECT nothing FROM nowhere WHERE a = %s" Bad-One
DBDPrepareSQL "SELECT name FROM account WHERE name = %s" Get-Account
DBDPrepareSQL "UPDATE account SET page = %s WHERE name = %s" set-page
DBDPrepareSQL "DELETE FROM session WHERE key = %s" deletesession
DBDPrepareSQL "UPDATE session SET value = %s, expiry = %lld, key = %s WHERE key = %s" updatesession
DBDPrepareSQL "INSERT INTO session (value, expiry, key) VALUES (%s, %lld, %s)" insertsession
DBDPrepareSQL "SELECT value FROM session WHERE key = %s AND (expiry = 0 OR expiry > %lld)" selectsession
DBDPrepareSQL "DELETE FROM session WHERE expiry <> 0 AND expiry < %lld" cleansession
RewriteEngine on
RewriteMap place "dbd:SELECT target FROM place WHERE name = %s"
RewriteMap fast "fastdbd:SELECT target FROM place WHERE name = %s"
RewriteMap broken "dbd:SELECT target FROM no_such_table WHERE name = %s"
RewriteRule ^/go/(.*)\$ \${place:\$1|/missing.txt} [L]
RewriteRule ^/fast/(.*)\$ \${fast:\$1|/missing.txt} [L]
RewriteRule ^/broken/(.*)\$ \${broken:\$1|/missing.txt} [L]
<Location /in>
  AuthType Basic
  AuthName x
  AuthBasicProvider dbd
  AuthDBDUserPWQuery "SELECT password FROM account WHERE name = %s"
  Require valid-user
</Location>
<Location /in/team>
  AuthzDBDQuery "SELECT team FROM member WHERE name = %s"
  Require dbd-group red
</Location>
<Location /in/login>
  AuthzDBDQuery "UPDATE account SET is_in = true WHERE name = %s"
  AuthzDBDLoginToReferer On
  Require dbd-login
</Location>
<Location /in/logout>
  AuthzDBDQuery "UPDATE account SET is_in = false WHERE name = %s"
  Require dbd-logout
</Location>
<Files *.lua>
  SetHandler lua-script
</Files>
<Location /session.lua>
  Session On
  SessionEnv On
  SessionHeader X-Replace-Session
  SessionDBDCookieName sid path=/
</Location>
<Location /status>
  SetHandler pgpool-status
</Location>
CONF
my @modules = qw(pgpool pgpool_dbd auth_basic authn_dbd authz_dbd authz_user rewrite session
    session_dbd lua);

my $session_lua = <<'LUA';
function handle(r)
    local word = r.args
    if word == "drop" then r.headers_out['X-Replace-Session'] = "word="
    elseif word then r.headers_out['X-Replace-Session'] = "word=" .. word end
    r.content_type = "text/plain"
    r:puts(r.subprocess_env['HTTP_SESSION'] or "", "\n")
    return apache2.OK
end
LUA

my $db_lua = <<'LUA';
function handle(r)
    r.content_type = "text/plain"
    local db, wrong = r:dbacquire("mod_dbd")
    if not db then r:puts("no connection: ", wrong); return apache2.OK end
    local found, all = db:prepared(r, "Get-Account"), {}
    local rows = assert(found:select("amy"))
    all[#all + 1] = rows(-1)[1]
    all[#all + 1] = tostring((rows(-1)))
    for _, row in ipairs(assert(db:select(r, "SELECT name FROM account ORDER BY 1"))(0)) do
        all[#all + 1] = row[1]
    end
    all[#all + 1] = math.floor(db:query(r, "UPDATE account SET page = '" ..
        db:escape(r, "it's") .. "' WHERE name = 'bob'"))
    all[#all + 1] = tostring(db:prepared(r, "set-page"):query("/hello.txt", "bob"))
    all[#all + 1] = tostring((db:prepared(r, "no such label")))
    local _, error = db:prepared(r, "Bad-One"):select("x")
    all[#all + 1] = error:match("no%w* ?%w*")  and "refused" or "?"
    local own = assert(db:prepare(r, "SELECT %s || '!'"))
    all[#all + 1] = own:select("own")(-1)[1]
    all[#all + 1] = tostring(db:active())
    if r.args ~= "lose" then db:close() end
    r:puts(table.concat(all, " "), "\n")
    return apache2.OK
end
LUA
my $db_answer = "amy nil amy bob 1 1 nil refused own! true\n";

# The values of a header; one that came several times is an array.
sub flat { return map { ref ? @$_ : $_ // '' } @_ }

sub basic {
    my ($name, $password) = @_;
    return {headers => {Authorization => 'Basic '
        . MIME::Base64::encode_base64("$name:" . ($password // "secret of $name"), '')}};
}
require MIME::Base64;

for my $mpm (Httpd::mpms()) {
    my $httpd = Httpd->new(mpm => $mpm, modules => \@modules, children => 1, conf => $conf);
    Httpd::spew("$httpd->{dir}/htdocs/$_->[0]", $_->[1]) for ['hello.txt', "hello\n"],
        ['missing.txt', "missing\n"], ['session.lua', $session_lua], ['db.lua', $db_lua];
    mkdir "$httpd->{dir}/htdocs/in";
    Httpd::spew("$httpd->{dir}/htdocs/in/$_", "inside\n") for qw(index.txt team login logout);
    $httpd->start;
    my $status = sub { $httpd->get(@_)->{status} };
    my $body = sub { $httpd->get(@_)->{content} };

    is $body->('/in/index.txt', basic('amy')), "inside\n", "$mpm: a user with a password";
    is $status->('/in/index.txt', basic('amy', 'wrong')), 401, 'a wrong password';
    is $status->('/in/index.txt', basic('eve')), 401, 'an unknown user';
    is $status->('/in/team', basic('amy')), 200, 'a member of the group';
    is $status->('/in/team', basic('bob')), 401, 'a member of another group';
    is $status->('/in/login', basic('bob')), 200, 'a login';
    is query($pg, "SELECT is_in FROM account WHERE name = 'bob'"), 't', 'it has run its statement';
    is $status->('/in/logout', basic('bob')), 200, 'a logout';
    is query($pg, "SELECT is_in FROM account WHERE name = 'bob'"), 'f', 'it has run its statement';

    for my $map (qw(go fast)) {
        is $body->("/$map/home"), "hello\n", "$map: a key of the map";
        is $body->("/$map/home"), "hello\n", 'again';
        is $body->("/$map/none"), "missing\n", 'a key that is not there';
    }
    is $body->('/broken/home'), "missing\n", 'a map whose statement is bad';
    like $httpd->error_log, qr/PGP1020: pool dbd: label .*no_such_table/, 'the log has the cause';

    # httpd gives a session a new key at each change.
    my $cookie = sub { {headers => {Cookie => join(' ', flat($_[0]{headers}{'set-cookie'})) =~ /(sid=[^;]+)/}} };
    is $body->('/session.lua'), "\n", 'no session yet';
    my $with = $cookie->($httpd->get('/session.lua?first'));
    is $body->('/session.lua', $with), "word=first\n", 'a session is written and read';
    $with = $cookie->($httpd->get('/session.lua?second', $with));
    is $body->('/session.lua', $with), "word=second\n", 'it is changed';
    is query($pg, "SELECT string_agg(value, ' ') FROM session WHERE value <> ''"), 'word=second', 'in its row';
    query($pg, 'UPDATE session SET expiry = 1');
    is $body->('/session.lua', $with), "\n", 'it expires';
    query($pg, 'UPDATE session SET expiry = 0');
    $httpd->get('/session.lua?drop', $with);
    is query($pg, "SELECT count(*) FROM session WHERE value LIKE 'word%'"), 0, 'it is deleted';

    is $body->('/db.lua'), $db_answer, 'Lua: statements of each kind';
    is_deeply {map { $body->('/db.lua?lose') => 1 } 1 .. 20}, {$db_answer => 1},
        'Lua: a handle that is not closed';
    poll_until { query($pg, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bridge'
        AND state <> 'idle'}) == 0 };

    my $many = $ENV{PGPOOL_SANITIZE} ? 100 : 1000;
    my %answer;
    $answer{$body->('/db.lua')}++ for 1 .. $many;
    is_deeply \%answer, {$db_answer => $many}, "Lua: $many times";
    cmp_ok query($pg, q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'bridge'}),
        '<=', $mpm eq 'prefork' ? 4 * 8 : 4, 'DBDMax holds, DBDInitSQL has run';

    kill_backends($pg);
    my @after = map { $status->('/in/index.txt', basic('amy')) } 1 .. 20;
    is_deeply [grep { $_ != 200 } @after], [], 'idle connections are killed: no look-up fails';
    $pg->restart;
    @after = map { $status->('/in/index.txt', basic('amy')) } 1 .. 20;
    is_deeply [grep { $_ != 200 } @after], [], 'the server is restarted: no look-up fails';
    like $body->('/status?auto'), qr/^PgPool.*dbd/m, 'the status shows the pool';
    $httpd->stop;
}
done_testing;
