#!/usr/bin/perl

# The demo (`make run`): its page, each link on it, each curl line, and its end.

use PgPoolTest;
use HTTP::Tiny;

plan skip_all => 'once is enough' if $ENV{PGPOOL_SANITIZE};

my $port = Httpd::free_port();
my $root = "http://127.0.0.1:$port";
my $pid = fork // die "fork: $!";
if (!$pid) {
    $ENV{PORT} = $port;
    open STDOUT, '>', "$ENV{TESTDIR}/demo.log" or die "demo.log: $!";
    open STDERR, '>&', \*STDOUT                or die "demo.log: $!";
    exec 't/demo' or die "t/demo: $!";
}

my $http = HTTP::Tiny->new(timeout => 30);
ok((poll_until { Httpd::slurp("$ENV{TESTDIR}/demo.log") =~ /psql/ } 120), 'the demo starts and prints commands to try');
my $page = $http->get("$root/");
is $page->{status}, 200, 'there is a page at /';
is $page->{headers}{'content-type'}, 'text/html; charset=utf-8', 'it is HTML';

my @link = $page->{content} =~ /href="([^"]+)"/g;
is_deeply [grep { $http->get("$root$_")->{status} != 200 } @link], [], scalar(@link) . ' links are answered';

my @line = $page->{content} =~ /<pre>curl (.*?)<\/pre>/g;
my @wrong = grep {
    my ($method) = /^-X (\w+) /;
    my ($url) = /(http\S+)$/;
    $url !~ /^\Q$root\E\// || $http->request($method // 'GET', $url)->{status} != 200;
} @line;
is_deeply \@wrong, [], scalar(@line) . ' curl lines work';

kill TERM => $pid;
waitpid $pid, 0;
is $?, 0, 'a signal ends it';
ok !$http->get("$root/")->{success}, 'and its httpd';
done_testing;
