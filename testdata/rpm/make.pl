#!/usr/bin/perl
# Makes `Packages`, an rpm database of the oldest kind, with the library that rpm used: perl make.pl [FILE]
use strict;
use DB_File;

my $file = $ARGV[0] // 'Packages';
unlink $file;
my $kind = DB_File::HASHINFO->new;
$kind->{bsize} = 512;
tie my %database, 'DB_File', $file, O_RDWR | O_CREAT, 0644, $kind or die "$file: $!";

# An rpm header: entries of tag, type, offset and count, then their data.
sub header {
    my @tags = @_;
    my ($entries, $data) = ('', pack 'N', 2);
    $entries .= pack 'N4', 1003, 4, 0, 1;
    while (my ($tag, $text) = splice @tags, 0, 2) {
        $entries .= pack 'N4', $tag, 6, length $data, 1;
        $data .= "$text\0";
    }
    return pack('N2', length($entries) / 16, length $data) . $entries . $data;
}

# The first record counts the others.
$database{pack 'V', 0} = pack 'V', 4;
my $number = 1;
for my $name ('bash', 'glibc', 'gpg-pubkey') {
    # Longer than a page, as headers are: their data is elsewhere.
    my $header = header(1000, $name, 1001, '5.2', 1002, '3.fc40', 1022, 'x86_64', 1005, 'long ' x 300);
    $database{pack 'V', $number++} = $header;
}
untie %database;
