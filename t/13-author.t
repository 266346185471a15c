#!/usr/bin/perl

# The README's example of a handler is built with the README's command, and answers.

use PgPoolTest;
use Cwd qw(getcwd);

plan skip_all => 'once is enough' if $ENV{PGPOOL_SANITIZE};

my $readme = Httpd::slurp('README.md');
my ($source) = $readme =~ /^A whole handler, `mod_hello\.c`:\n\n(.*?)^\S/ms;
my ($options) = $readme =~ /^    sudo apxs -i -a (-c .*) mod_hello\.c$/m;
ok $source && $options, 'the README has a handler and a command';

my $dir = File::Temp->newdir('author-XXXXXX', DIR => $ENV{TESTDIR});
my $header = getcwd() . '/mod_pgpool';
Httpd::spew("$dir/mod_hello.c", $source =~ s/^ {4}//gmr);
my $apxs = $ENV{APXS} || 'apxs';
my $said = qx{cd $dir && $apxs -Wc,-Wall -Wc,-Werror -I $header $options mod_hello.c 2>&1};
is $?, 0, 'it is built without a warning' or diag $said;

my $pg = postgres;
my $conninfo = conninfo($pg);
my $httpd = httpd(<<"CONF");
LoadModule hello_module $dir/.libs/mod_hello.so
PgPoolConninfo "$conninfo"
<Location /hello>
  SetHandler hello
</Location>
CONF
is $httpd->get('/hello?world')->{content}, "Hello world\n", 'it answers';
is $httpd->get('/hello')->{content}, "\n", 'without an argument, too';
$httpd->stop;
done_testing;
