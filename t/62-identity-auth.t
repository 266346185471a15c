#!/usr/bin/perl

# A user's name in the session, with httpd's own modules for authentication: a name that was not
# verified never gets there, in sections of any kind and however the request reaches them; also with
# a provider that authenticates over the request's own connection.  All cases run once more with
# hooks that discard the session's state.

use PgPoolTest;
use Digest::SHA qw(sha1_base64);
use HTTP::Tiny;
use MIME::Base64 qw(encode_base64);

my $pg = postgres;
my $conninfo = conninfo($pg);

# ---- sections: each kind of authentication in each kind of section

my %where = (
    loc   => ['<Location /%s-loc/>', '</Location>', '/%s-loc/'],
    dir   => ['<Directory ${DIR}/htdocs/%s-dir/>', '</Directory>', '/%s-dir/'],
    files => ['<Files "%s-files-*">', '</Files>', '/%s-files-'],
    if    => ['<If "%%{REQUEST_URI} =~ m#^/%s-if/#">', '</If>', '/%s-if/'],
);

my %how = (
    basic  => ['AuthType Basic', 'AuthUserFile ${DIR}/passwd', 'Require valid-user'],
    anon   => ['AuthType Basic', 'AuthBasicProvider anon', 'Anonymous guest', 'Anonymous_MustGiveEmail off', 'Require valid-user'],
    form   => ['AuthType form', 'AuthFormProvider file', 'AuthUserFile ${DIR}/passwd', 'Session On',
        'SessionCookieName session path=/', 'Require valid-user'],
    asking => ['AuthType Basic', 'AuthBasicProvider pgpool', 'Require valid-user'],
    broken => ['AuthType Basic', 'AuthUserFile ${DIR}/none', 'Require valid-user'],
    strict => ['AuthType Basic', 'AuthUserFile ${DIR}/passwd', 'Require user bob'],
    bob    => ['AuthType Basic', 'AuthUserFile ${DIR}/passwd', 'AuthzSendForbiddenOnFailure On', 'Require user bob'],
);

my $identity = 'PgPoolSet app.user "%{REMOTE_USER}"';
my $who = q(PgPoolQuery "SELECT current_setting('app.user') AS who, $1::text AS param" "%{REMOTE_USER}");
my @row = ($identity, $who, 'SetHandler pgpool-query');

sub page {
    my ($how, $where, $page) = @_;
    return sprintf($where{$where}[2], $how) . $page;
}

# A section that is reached in several ways; httpd does not authenticate twice within it.
sub mixed {
    my ($how) = @_;
    return "<Location /mixed-$how/>", 'AuthName test', @{ $how{$how} }, $identity, $who, "ErrorDocument 401 /mixed-$how/error.shtml",
        'AddHandler pgpool-query .row', 'AddOutputFilter INCLUDES .shtml', 'AddHandler to-row .act',
        "Action to-row /mixed-$how/a.row virtual", 'RewriteEngine On', "RewriteRule /go\$ /mixed-$how/a.row", 'DirectoryIndex a.row',
        '</Location>';
}

my @ways = ('a.row', 'page.shtml', 'go', 'b.act', '');

sub section {
    my ($how, $where) = @_;
    my ($open, $close) = @{ $where{$where} };
    my @error = map { "ErrorDocument $_ " . page($how, $where, 'error') } 401, 403, 500;
    return join "\n", sprintf($open, $how), 'AuthName test', @{ $how{$how} }, @error, @row, "$close\n";
}

my $conf = join "\n", "PgPoolConninfo \"$conninfo\"", 'PgPoolMin 1', 'PgPoolMax 1', 'PgPoolAcquireTimeout 60s',
    'PgPoolCheckTimeout 60s', 'DirectoryIndex page', 'TypesConfig /dev/null',
    '<Directory ${DIR}/htdocs>', 'Options +Includes +FollowSymLinks', '</Directory>',
    map({ my $how = $_; map { section($how, $_) } sort keys %where } sort keys %how),
    map({ mixed($_) } qw(basic anon form)),
    # The name comes from the environment, where mod_include puts it.
    '<Location /env/>', 'AuthName test', @{ $how{basic} }, $identity =~ s/%\{/%{reqenv:/r, $who =~ s/%\{/%{reqenv:/r,
    'ErrorDocument 401 /env/error.shtml', 'AddHandler pgpool-query .row', 'AddOutputFilter INCLUDES .shtml', '</Location>',
    '<Location /open/>', 'AddOutputFilter INCLUDES .shtml', '</Location>',
    # The query string names the handler.
    '<Location /login/>', 'AuthName test', 'AuthType form', 'AuthFormProvider file', 'AuthUserFile ${DIR}/none', 'Session On',
    'SessionCookieName session path=/', 'Require all granted', $identity, $who, 'SetHandler "%{QUERY_STRING}"',
    'ErrorDocument 500 /login/page?pgpool-query',
    '</Location>', '<Location /asking-login/>', 'AuthName test', 'AuthType form', 'AuthFormProvider pgpool', 'Session On',
    'SessionCookieName session path=/', 'Require all granted', $identity, 'SetHandler form-login-handler', "</Location>\n";

sub started {
    my @more = @_;
    my $httpd = Httpd->new(conf => $conf, modules => [qw(pgpool pgpool_query pgpool_authn mime dir include actions rewrite auth_basic
        authn_file authn_anon authz_user auth_form session session_cookie request), @more]);
    Httpd::spew($httpd->dir . '/passwd', join '', map { "$_:{SHA}" . sha1_base64("$_ secret") . "=\n" } qw(alice bob));
    for my $directory (qw(env open login asking-login), map({ "mixed-$_" } qw(basic anon form)), map { my $how = $_; map { "$how-$_" } qw(loc dir if) } sort keys %how) {
        mkdir $httpd->dir . "/htdocs/$directory" or die "$directory: $!";
        $httpd->put_file("$directory/page", '');
    }
    for my $directory ('env', map { "mixed-$_" } qw(basic anon form)) {
        $httpd->put_file("$directory/$_", '') for qw(a.row b.act);
        $httpd->put_file("$directory/$_.shtml", "<!--#include virtual=\"/$directory/a.row\" -->") for qw(page error);
    }
    $httpd->put_file('open/page.shtml', '<!--#include virtual="/basic-loc/page" -->');
    $httpd->put_file('open/asking.shtml', '<!--#include virtual="/asking-loc/page" -->' x 2);
    return $httpd->start;
}

# ---- requests

sub basic { my ($name, $password) = @_; return { Authorization => 'Basic ' . encode_base64("$name:$password", '') } }

my $right   = basic('alice', 'alice secret');
my $wrong   = basic('alice', 'guessed');
my $unknown = basic('mallory', 'guessed');

# A case: its name, path, headers, status, and for each row the name that the database saw, in the
# setting and in the parameter.
my @cases;
for my $where (sort keys %where) {
    my ($basic, $anon, $asking, $broken, $bob, $strict) =
        map { page($_, $where, 'page') } qw(basic anon asking broken bob strict);
    push @cases, ["$where: a right password", $basic, $right, 200, 'alice'],
        ["$where: a wrong password", $basic, $wrong, 401, ''],
        ["$where: an unknown user", $basic, $unknown, 401, ''],
        ["$where: no credentials", $basic, {}, 401, ''],
        ["$where: a guest", $anon, basic('guest', 'x'), 200, 'guest'],
        ["$where: a user who is no guest", $anon, $right, 401, ''],
        ["$where: verified by the database", $asking, $right, 200, 'alice'],
        ["$where: ... or not", $asking, $wrong, 401, ''],
        ["$where: a user who cannot be verified", $broken, $right, 500, ''],
        ["$where: a verified user without access", $bob, $right, 403, 'alice'],
        ["$where: ... which is answered 401", $strict, $right, 401, ''],
        ["$where: an unverified user with access", $bob, basic('bob', 'guessed'), 401, ''];
}
for (['basic', $right, 200, 'alice'], ['basic', $wrong, 401, ''], ['anon', basic('guest', 'x'), 200, 'guest'], ['anon', $right, 401, '']) {
    my ($how, $credentials, $status, $who) = @$_;
    push @cases, map { ["$how, $status: /$_", "/mixed-$how/$_", $credentials, $status, $who] } @ways;
}
push @cases, ['the environment of SSI', '/env/page.shtml', $right, 200, 'alice'],
    ['... with a wrong password', '/env/page.shtml', $wrong, 401, ''],
    ['DirectoryIndex, right', '/basic-dir/', $right, 200, 'alice'],
    ['DirectoryIndex, wrong', '/basic-dir/', $wrong, 401, ''],
    ['SSI into a section', '/open/page.shtml', $right, 200, 'alice'],
    ['... with a wrong password', '/open/page.shtml', $wrong, 200],
    ['SSI that the database verifies', '/open/asking.shtml', $right, 200, 'alice', 'alice'];

sub is_row {
    my ($answer, $name, $status, @who) = @_;
    local $Test::Builder::Level = $Test::Builder::Level + 1;
    my @seen = $answer->{content} =~ /"who":"(.*?)","param":"(.*?)"/g;
    is_deeply [$answer->{status}, @seen], [$status, map { ($_, $_) } @who], $name or diag $answer->{content};
    return;
}

sub form { my ($name, $password) = @_; return { httpd_username => $name, httpd_password => $password } }

sub forms {
    my ($httpd) = @_;
    for my $where (sort keys %where) {
        my $client = HTTP::Tiny->new;
        my $url = $httpd->url(page('form', $where, 'page'));
        is_row($client->get($url), "form, $where: nobody", 401, '');
        is_row($client->post_form($url, form('alice', 'guessed')), '... a wrong password', 401, '');
        my $answer = $client->post_form($url, form('alice', 'alice secret'));
        is_row($answer, '... the right one', 200, 'alice');
        my ($cookie) = $answer->{headers}{'set-cookie'} =~ /(session=[^;]*)/;
        is_row($client->get($url, { headers => { Cookie => $cookie } }), '... its session', 200, 'alice');
        is_row($client->get($url, { headers => { Cookie => $cookie =~ s/secret/guessed/r } }), '... a forged one', 401, '');
    }
    my $login = HTTP::Tiny->new->post_form($httpd->url('/form-loc/page'), form('alice', 'alice secret'));
    my ($cookie) = $login->{headers}{'set-cookie'} =~ /(session=[^;]*)/;
    for my $way (@ways) {
        my $url = $httpd->url("/mixed-form/$way");
        is_row(HTTP::Tiny->new->get($url, { headers => { Cookie => $cookie } }), "form, 200: /$way", 200, 'alice');
        is_row(HTTP::Tiny->new->get($url, { headers => { Cookie => $cookie =~ s/secret/guessed/r } }), "form, 401: /$way", 401, '');
    }
    is_row(HTTP::Tiny->new->post_form($httpd->url('/login/page?form-login-handler'), form('alice', 'alice secret')),
        'a login that nobody can verify', 500, '');
    is(HTTP::Tiny->new->post_form($httpd->url('/asking-login/page'), form('alice', 'alice secret'))->{status}, 200,
        '... and one that the database verifies');
    return;
}

for my $more ([], ['pgpool_discard']) {
    subtest "@$more" || 'plain' => sub {
        my $httpd = started(@$more);
        for (@cases) {
            my ($name, $path, $headers, @expected) = @$_;
            is_row($httpd->get($path, { headers => $headers }), $name, @expected);
        }
        forms($httpd);
        $httpd->stop;
    };
}

done_testing;
