package Wrk;

# A run of wrk, a load generator: keep-alive clients request one URL, each again as soon as it has
# its answer.
#
#   my $got = Wrk::run($httpd->url('/x'), clients => 16, seconds => 3);
#   $got->{rate};                    # requests a second
#   $got->{p50}, $got->{p99}, $got->{max};      # milliseconds
#
# `header` is one more line of each request.
#
# Failed requests are fast, so figures that include them mean nothing: run() dies, except with
# `may_fail`; then $got->{failed} is their number.  $got->{cut} is how many connections httpd closed
# while a client was about to use them again: MPM event does so when all threads of a child are
# busy.

use strict;
use warnings;

use File::Basename qw(dirname);
use List::Util qw(sum);

my $script = dirname(__FILE__) . '/wrk.lua';

sub run {
    my ($url, %option) = @_;
    my @command = ('wrk', '-t1', "-c$option{clients}", "-d$option{seconds}s", '--timeout', '30s', '-s', $script,
        map({ ('-H', $_) } $option{header} // ()), $url);
    open my $output, '-|', @command or die "wrk: $!";
    my $text = do { local $/; <$output> };
    close $output or die "@command: exit $?\n$text";
    my ($requests, $time, @latency) = $text =~ /^figures (.*)$/m ? split ' ', $1 : ();
    die "@command: no figures\n$text" if !$requests;
    my ($failures) = $text =~ /^(failed .*)$/m;
    my ($cut) = $failures =~ /read (\d+)/;
    my %got = (rate => $requests / $time * 1e6, cut => $cut, failed => sum($failures =~ /(\d+)/g) - $cut);
    die "@command: $failures of $requests requests\n" if $got{failed} + $cut && !$option{may_fail};
    @got{qw(p50 p99 max)} = map { $_ / 1000 } @latency;
    return \%got;
}

1;
