#!/usr/bin/perl

# What the README says exists is what exists: every message's number, every directive with its
# default, and nothing more.

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
    my @query = slurp('mod_pgpool/mod_pgpool_query.c') =~ /(PGP20\d\d)/g;
    my @told = map { /PGP\d{4}/g } $readme =~ /^\| (PGP\d{4}[^|]*)\|/mg;
    is_deeply sorted_once(@told), sorted_once(@core, @query), 'each is told in the README, and no other';
};

subtest 'directives' => sub {
    my %code = slurp('mod_pgpool/core/pgp_settings.h') =~ /"(PgPool\w+)",\s*PGP_KIND_\w+,[\s\\]*("[^"]*"|NULL)/g;
    tr/"//d for values %code;
    my %told = $readme =~ /^\| `(PgPool\w+)[^`]*` \| ([^|]*?) \| server, vhost, PgPool \|/mg;
    $_ = 'NULL' for grep { $_ eq 'none' } values %told;
    cmp_ok scalar keys %code, '>', 10, 'the options are found';
    is_deeply \%told, \%code, 'each option is told in the README with its default, and no other';
};

done_testing;
