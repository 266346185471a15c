#!/usr/bin/perl

# The README lists every message's number, every directive with its default and every file of the
# modules, and none that does not exist.

use strict;
use warnings;

use Test::More;

sub slurp {
    my ($file) = @_;
    open my $in, '<', $file or die "$file: $!\n";
    local $/;
    return <$in>;
}

my $readme = slurp('README.md');

sub sorted_once { my %seen = map { $_ => 1 } @_; return [sort keys %seen] }

subtest 'messages' => sub {
    my @core = map { "PGP$_" } slurp('mod_pgpool/core/pgp_env.h') =~ /PGP_MSG_\w+ = (\d{4})/g;
    my @query = map { slurp($_) =~ /(PGP20\d\d)/g } glob 'mod_pgpool/mod_pgpool_query*.c';
    my @told = map { /PGP\d{4}/g } $readme =~ /^\| (PGP\d{4}[^|]*)\|/mg;
    is_deeply sorted_once(@told), sorted_once(@core, @query), 'the README has each, and no other';
};

subtest 'directives' => sub {
    my %code = slurp('mod_pgpool/core/pgp_settings.h') =~ /"(PgPool\w+)",\s*PGP_KIND_\w+,[\s\\]*("[^"]*"|NULL)/g;
    tr/"//d for values %code;
    my %told = $readme =~ /^\| `(PgPool\w+)[^`]*` \| ([^|]*?) \| server, vhost, PgPool \|/mg;
    $_ = 'NULL' for grep { $_ eq 'none' } values %told;
    cmp_ok scalar keys %code, '>', 10, 'the options are found';
    is_deeply \%told, \%code, 'the README has each option with its default, and no other';
};

# A .c file and its header share a line of the map, and a private header has that of its family.
subtest 'files' => sub {
    my @stem = map { m{([^/]+?)(?:_private)?\.[ch]\z} } glob 'mod_pgpool/*.[ch] mod_pgpool/core/*.[ch]';
    my ($map) = $readme =~ /^## How it works\n(.*?)^## /ms;
    my @line = $map =~ /^ {4}((?:mod_)?pgp\w+)(?= {2,}\S)/mg;
    cmp_ok scalar @stem, '>', 50, 'the files are found';
    is_deeply [sort @line], sorted_once(@stem), 'each has one line in the README, and each line a file';
};

done_testing;
