import java.time.DateTimeException;
import java.time.Instant;
import java.time.ZoneId;
import java.time.format.DateTimeFormatter;
import java.util.ArrayList;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;

/** Writes java_dates.tsv: what Java makes of patterns, timestamps and texts. */
class JavaDates {
    static final String[] PATTERNS = {
        "yyyyMMddHHmmss", "yyyyMMddHHmmssSSS", "yyMMddHHmmss", "yy-MM-dd HH:mm", "uu/M/d H:m:s", "y-M-d H:m:s",
        "yyy-MM-dd HH", "u-MM-dd HH:mm:ss.S", "uuuu-MM-dd HH:mm:ss.SS", "uuuuu-MM-dd HH:mm:ss.SSSSSS",
        "yyyyyy-MM-dd'T'HH:mm:ss.SSSSSSSSS", "GGG yyyy-MM-dd HH:mm", "yyyy G-MM-dd HH:mm", "GGGG y-MM-dd HH:mm",
        "GGGGG y-MM-dd HH:mm", "d MMM yyyy HH:mm:ss", "dd MMMM yyyy, HH:mm", "d LLL yyyy HH:mm", "d LLLL yyyy HH:mm",
        "EEE, d MMM yyyy HH:mm:ss Z", "EEEE dd/MM/yyyy HH:mm", "E dd/MM/yyyy HH:mm", "e dd/MM/yyyy HH:mm",
        "ee dd/MM/yyyy HH:mm", "c dd/MM/yyyy HH:mm", "ccc dd/MM/yyyy HH:mm", "eeee dd/MM/yyyy HH:mm",
        "dd/MM/yyyy hh:mm:ss a", "dd/MM/yyyy h:mm a", "dd/MM/yyyy KK:mm a", "dd/MM/yyyy K:mm a", "dd/MM/yyyy kk:mm",
        "dd/MM/yyyy k:mm", "h:mma M/d/yy", "yyyy-DDD HH:mm", "yyyy-D HH:mm", "yyyy-DD HH:mm", "yyyyDDDHHmm",
        "Q yyyy-MM-dd HH:mm", "QQ yyyy-MM-dd HH:mm", "QQQ yyyy-MM-dd HH:mm", "QQQQ yyyy-MM-dd HH:mm",
        "QQQQQ yyyy-MM-dd HH:mm", "q yyyy-MM-dd HH:mm", "qqq yyyy-MM-dd HH:mm", "qqqq yyyy-MM-dd HH:mm",
        "YYYY-'W'ww-e HH:mm", "YYYY-'W'w-E HH:mm", "YY-ww-c HH:mm", "Ywwe HHmm", "yyyy-MM W E HH:mm",
        "yyyy-MM-dd W w HH:mm", "YYYY yyyy-MM-dd HH:mm", "g HH:mm:ss", "g A", "yyyy-MM-dd A", "yyyy-MM-dd AAAAAAAAAA",
        "yyyy-MM-dd N", "yyyy-MM-dd HH:mm:ss n", "yyyy-MM-dd HH:mm:ss nnnnnnnnn", "yyyyMMdd A",
        "yyyy-MM-dd'T'HH:mm:ssX", "yyyy-MM-dd'T'HH:mm:ssXX", "yyyy-MM-dd'T'HH:mm:ssXXX", "yyyy-MM-dd'T'HH:mm:ssXXXX",
        "yyyy-MM-dd'T'HH:mm:ssXXXXX", "yyyy-MM-dd'T'HH:mm:ssx", "yyyy-MM-dd'T'HH:mm:ssxx", "yyyy-MM-dd'T'HH:mm:ssxxx",
        "yyyy-MM-dd'T'HH:mm:ssxxxx", "yyyy-MM-dd'T'HH:mm:ssxxxxx", "yyyy-MM-dd HH:mm:ss Z", "yyyy-MM-dd HH:mm:ss ZZ",
        "yyyy-MM-dd HH:mm:ss ZZZ", "yyyy-MM-dd HH:mm:ss ZZZZ", "yyyy-MM-dd HH:mm:ss ZZZZZ", "yyyy-MM-dd HH:mm:ss O",
        "yyyy-MM-dd HH:mm:ss OOOO", "yyyy-MM-dd HH:mm:ss VV", "yyyy-MM-dd HH:mm:ss z", "yyyy-MM-dd HH:mm:ss zzz",
        "yyyy-MM-dd HH:mm:ss zzzz", "yyyy-MM-dd'T'HH:mm:ss.SSSXXX'['VV']'", "yyyy-MM-dd HH:mm[:ss]",
        "yyyy-MM-dd HH:mm[:ss[.SSS]]", "yyyy-MM-dd'T'HH:mm:ss[.SSS][XXX]", "yyyy-MM-dd HH[:mm", "[EEE ]yyyy-MM-dd HH:mm",
        "yyyy[-MM[-dd[ HH:mm]]]", "ppd/ppM/yyyy HH:mm", "ppppppyyyy-MM-dd HH:mm", "yyyy-MM-dd pppH:mm",
        "yyyy-MM-dd ppppppppn HH:mm:ss", "ppppppppE yyyy-MM-dd HH:mm", "yyyy'年'MM'月'dd'日' HH:mm", "yyyy年MM月dd日 HH:mm",
        "dd.MM.yyyy 'um' HH 'o''clock' mm", "'' yyyy-MM-dd HH:mm", "yyyy-MM-dd'{0}%Y' HH:mm", "yyyy-MM-dd-yyyy HH:mm",
        "yyyy-uuuu-MM-dd HH:mm", "dMyyyy HH:mm", "yyyyMMd HHmm", "Hmm yyyy-MM-dd", "yMMdd HH:mm", "yyyyMMddEEEHHmm",
        "yyyyMMdde HHmm", "MMddyyyy HH:mm", "HHmmssSSS yyyy-MM-dd", "dd/MM/yyyy HH", "yyyy-MM-dd HH ss", "yyyy-MM-dd H:mm a",
        "yyyy-MM-dd SSS HH:mm:ss", "yyyyMMddHHmmX", "yyyy-M-dd_HH.mm.ss", "yyyy-MM-dd HH:mm:ss,SSS", "yyyy MMMMM dd HH:mm",
        "EEEEE yyyy-MM-dd HH:mm", "MMM d, yyyy h:mm:ss a", "MMM d, yyyy, h:mm a z", "EEE MMM dd HH:mm:ss zzz yyyy",
        "dd-MMM-yy hh.mm.ss.SSS a", "uuuu-MM-dd'T'HH:mm:ss.SSSSSS'Z'", "dd/MMM/yyyy:HH:mm:ss Z",
    };
    static final String[] ZONES = {"UTC", "Europe/Berlin", "America/New_York", "Asia/Kathmandu"};
    static final long[] MILLIS = {
        1720073109007L, 1709164799999L, 0L, -1L, 951782400000L, 1735603200000L, 1729989000000L, 1729992600000L,
        1704067199000L, 1703980800000L, 946684799000L, 4102444800000L, 253402300800000L, -2208988800000L,
        -62135596800000L, -62167305600000L, -99999999999999L, 999999999999999L, 1700000000000L, 1712345678900L,
        1720051200000L, 1720094400000L, 1720137599999L,
    };
    /** What a pattern is asked to read beyond the texts that it writes: a pattern and a text. */
    static final String[][] TEXTS = {
        {"yyyy-MM-dd HH:mm", "2024-02-30 00:00"}, {"yyyy-MM-dd HH:mm", "2024-02-29 00:00"}, {"yyyy-MM-dd HH:mm", "2023-02-29 00:00"},
        {"yyyy-MM-dd HH:mm", "2024-04-31 00:00"}, {"yyyy-MM-dd HH:mm", "2024-04-32 00:00"}, {"yyyy-MM-dd HH:mm", "2024-13-01 00:00"},
        {"yyyy-MM-dd HH:mm", "2024-00-01 00:00"}, {"yyyy-MM-dd HH:mm", "2024-01-01 24:00"}, {"yyyy-MM-dd HH:mm", "2024-01-01 24:01"},
        {"yyyy-MM-dd HH:mm", "2024-01-01 25:00"}, {"yyyy-MM-dd HH:mm", "2024-01-01 23:60"}, {"yyyy-MM-dd HH:mm", "24-01-01 23:00"},
        {"yyyy-MM-dd HH:mm", "12024-01-01 23:00"}, {"yyyy-MM-dd HH:mm", "+12024-01-01 23:00"}, {"yyyy-MM-dd HH:mm", "+2024-01-01 23:00"},
        {"yyyy-MM-dd HH:mm", "-2024-01-01 23:00"}, {"yyyy-MM-dd HH:mm", "0000-01-01 23:00"}, {"uuuu-MM-dd HH:mm", "0000-01-01 23:00"},
        {"uuuu-MM-dd HH:mm", "-0001-01-01 23:00"}, {"uuuu-MM-dd HH:mm", "-0000-01-01 23:00"}, {"uuuu-MM-dd HH:mm", "-1-01-01 23:00"},
        {"y-M-d H:m", "2024-7-4 6:5"}, {"y-M-d H:m", "2024-07-04 06:05"}, {"y-M-d H:m", "2024-007-04 06:05"}, {"y-M-d H:m", "24-7-4 6:5"},
        {"y-M-d H:m", "-24-7-4 6:5"}, {"u-M-d H:m", "-24-7-4 6:5"}, {"y-M-d H:m", "+2024-7-4 6:5"}, {"y-M-d H:m", "2024-7--4 6:5"},
        {"y-M-d H:m", "2024-7-0 6:5"}, {"yy-MM-dd HH:mm", "00-01-01 00:00"}, {"yy-MM-dd HH:mm", "99-12-31 00:00"},
        {"yy-MM-dd HH:mm", "2024-12-31 00:00"}, {"yy-MM-dd HH:mm", "5-12-31 00:00"}, {"d MMM yyyy HH:mm", "4 Jul 2024 06:05"},
        {"d MMM yyyy HH:mm", "4 jul 2024 06:05"}, {"d MMM yyyy HH:mm", "4 JUL 2024 06:05"}, {"d MMM yyyy HH:mm", "4 July 2024 06:05"},
        {"d MMM yyyy HH:mm", "4 Sept 2024 06:05"}, {"d MMM yyyy HH:mm", "4 7 2024 06:05"}, {"d MMMM yyyy HH:mm", "4 May 2024 06:05"},
        {"d MMM yyyy HH:mm", "4 May 2024 06:05"}, {"dd/MM/yyyy hh:mm a", "04/07/2024 12:05 AM"}, {"dd/MM/yyyy hh:mm a", "04/07/2024 12:05 PM"},
        {"dd/MM/yyyy hh:mm a", "04/07/2024 00:05 PM"}, {"dd/MM/yyyy hh:mm a", "04/07/2024 00:05 AM"}, {"dd/MM/yyyy hh:mm a", "04/07/2024 13:05 PM"},
        {"dd/MM/yyyy hh:mm a", "04/07/2024 01:05 pm"}, {"dd/MM/yyyy hh:mm a", "04/07/2024 01:05 P"}, {"dd/MM/yyyy KK:mm a", "04/07/2024 11:05 PM"},
        {"dd/MM/yyyy KK:mm a", "04/07/2024 12:05 PM"}, {"dd/MM/yyyy HH:mm a", "04/07/2024 13:05 PM"}, {"dd/MM/yyyy HH:mm a", "04/07/2024 13:05 AM"},
        {"dd/MM/yyyy kk:mm", "04/07/2024 24:05"}, {"dd/MM/yyyy kk:mm", "04/07/2024 00:05"}, {"dd/MM/yyyy kk:mm", "04/07/2024 25:05"},
        {"dd/MM/yyyy hh:mm", "04/07/2024 01:05"}, {"dd/MM/yyyy HH:mm", "04/07/2024"}, {"dd/MM/yyyy[ HH:mm]", "04/07/2024"},
        {"dd/MM/yyyy[ HH:mm]", "04/07/2024 01:05"}, {"dd/MM/yyyy[ HH:mm]", "04/07/2024 01"}, {"dd/MM/yyyy HH[:mm]", "04/07/2024 01"},
        {"dd/MM/yyyy[ HH][:mm]", "04/07/2024:30"}, {"dd/MM/yyyy HH[:mm][ ss]", "04/07/2024 01 30"}, {"dd[/MM[/yyyy]] HH:mm", "04 01:30"},
        {"dd[/MM[/yyyy]] HH:mm", "04/07/2024 01:30"}, {"yyyy-MM-dd HH:mm[XXX]", "2024-07-04 12:00+02:00"}, {"yyyy-MM-dd HH:mm[XXX]", "2024-07-04 12:00"},
        {"yyyy-MM-dd HH:mm[XXX][ VV]", "2024-07-04 12:00+02:00 Europe/Berlin"}, {"yyyy-MM-dd HH:mm[XXX][ VV]", "2024-07-04 12:00 Asia/Tokyo"},
        {"yyyy-MM-dd HH:mmX", "2024-07-04 12:00+02"}, {"yyyy-MM-dd HH:mmX", "2024-07-04 12:00+0230"}, {"yyyy-MM-dd HH:mmX", "2024-07-04 12:00+02:30"},
        {"yyyy-MM-dd HH:mmX", "2024-07-04 12:00Z"}, {"yyyy-MM-dd HH:mmX", "2024-07-04 12:00z"}, {"yyyy-MM-dd HH:mmX", "2024-07-04 12:00+00"},
        {"yyyy-MM-dd HH:mmXXX", "2024-07-04 12:00-11:30"}, {"yyyy-MM-dd HH:mmXXX", "2024-07-04 12:00-1130"}, {"yyyy-MM-dd HH:mmXXX", "2024-07-04 12:00+18:00"},
        {"yyyy-MM-dd HH:mmXXX", "2024-07-04 12:00+18:01"}, {"yyyy-MM-dd HH:mmXXX", "2024-07-04 12:00+02:60"}, {"yyyy-MM-dd HH:mmXXXXX", "2024-07-04 12:00+02:30:15"},
        {"yyyy-MM-dd HH:mmXXXX", "2024-07-04 12:00+023015"}, {"yyyy-MM-dd HH:mmx", "2024-07-04 12:00+0030"}, {"yyyy-MM-dd HH:mmx", "2024-07-04 12:00+00"},
        {"yyyy-MM-dd HH:mmxxx", "2024-07-04 12:00Z"}, {"yyyy-MM-dd HH:mm O", "2024-07-04 12:00 GMT+2"}, {"yyyy-MM-dd HH:mm O", "2024-07-04 12:00 GMT+02"},
        {"yyyy-MM-dd HH:mm O", "2024-07-04 12:00 GMT-2:30"}, {"yyyy-MM-dd HH:mm O", "2024-07-04 12:00 GMT"}, {"yyyy-MM-dd HH:mm O", "2024-07-04 12:00 UTC"},
        {"yyyy-MM-dd HH:mm OOOO", "2024-07-04 12:00 GMT+02:00"}, {"yyyy-MM-dd HH:mm OOOO", "2024-07-04 12:00 GMT+2"}, {"yyyy-MM-dd HH:mm VV", "2024-07-04 12:00 Z"},
        {"yyyy-MM-dd HH:mm VV", "2024-07-04 12:00 +02:00"}, {"yyyy-MM-dd HH:mm VV", "2024-07-04 12:00 UTC+02:00"}, {"yyyy-MM-dd HH:mm VV", "2024-07-04 12:00 GMT"},
        {"yyyy-MM-dd HH:mm VV", "2024-07-04 12:00 Mars/Olympus"}, {"yyyy-MM-dd HH:mm VV", "2024-07-04 12:00 Etc/GMT-5"}, {"yyyy-MM-dd HH:mm VV", "2024-07-04 12:00 America/Argentina/Buenos_Aires"},
        {"yyyy-MM-dd HH:mm z", "2024-01-04 12:00 PST"}, {"yyyy-MM-dd HH:mm z", "2024-07-04 12:00 PDT"}, {"yyyy-MM-dd HH:mm z", "2024-07-04 12:00 CEST"},
        {"yyyy-MM-dd HH:mm z", "2024-07-04 12:00 UTC"}, {"yyyy-MM-dd HH:mm z", "2024-07-04 12:00 JST"}, {"yyyy-MM-dd HH:mm z", "2024-07-04 12:00 Asia/Tokyo"},
        {"yyyy-MM-dd HH:mm z", "2024-07-04 12:00 +05:30"}, {"yyyy-MM-dd HH:mm zzzz", "2024-07-04 12:00 Pacific Daylight Time"},
        {"EEE dd/MM/yyyy HH:mm", "Thu 04/07/2024 01:05"}, {"EEE dd/MM/yyyy HH:mm", "Fri 04/07/2024 01:05"}, {"EEE dd/MM/yyyy HH:mm", "thu 04/07/2024 01:05"},
        {"e dd/MM/yyyy HH:mm", "5 04/07/2024 01:05"}, {"e dd/MM/yyyy HH:mm", "4 04/07/2024 01:05"}, {"e dd/MM/yyyy HH:mm", "05 04/07/2024 01:05"},
        {"QQQ yyyy-MM-dd HH:mm", "Q3 2024-07-04 01:05"}, {"QQQ yyyy-MM-dd HH:mm", "Q2 2024-07-04 01:05"}, {"yyyy-DDD HH:mm", "2023-366 00:00"},
        {"yyyy-DDD HH:mm", "2024-366 00:00"}, {"yyyy-D HH:mm", "2024-5 00:00"}, {"yyyy-DDD MM HH:mm", "2024-186 07 00:00"}, {"yyyy-DDD MM HH:mm", "2024-186 08 00:00"},
        {"YYYY-'W'ww-e HH:mm", "2024-W53-1 00:00"}, {"YYYY-'W'ww-e HH:mm", "2024-W54-1 00:00"}, {"YYYY-'W'ww-e HH:mm", "2024-W01-1 00:00"},
        {"yyyy-'W'ww-e HH:mm", "2024-W01-1 00:00"}, {"YYYY-MM-dd HH:mm", "2024-07-04 00:00"}, {"yyyy-MM W E HH:mm", "2024-07 1 Sun 00:00"},
        {"yyyy-MM W E HH:mm", "2024-07 1 Thu 00:00"}, {"yyyy-MM-dd HH:mm:ss.SSS", "2024-07-04 12:00:00.5"}, {"yyyy-MM-dd HH:mm:ss.S", "2024-07-04 12:00:00.5"},
        {"yyyy-MM-dd HH:mm:ss.SSSSSS", "2024-07-04 12:00:00.123000"}, {"yyyy-MM-dd HH:mm:ss n", "2024-07-04 12:00:00 7000000"},
        {"yyyy-MM-dd HH:mm:ss n", "2024-07-04 12:00:00 007000000"}, {"yyyy-MM-dd HH:mm:ss SSS SS", "2024-07-04 12:00:00 120 12"},
        {"yyyy-MM-dd HH:mm:ss SSS SS", "2024-07-04 12:00:00 123 12"}, {"yyyy-MM-dd A", "2024-07-04 86399999"}, {"yyyy-MM-dd A", "2024-07-04 86400000"},
        {"yyyy-MM-dd HH A", "2024-07-04 12 43200000"}, {"yyyy-MM-dd HH A", "2024-07-04 11 43200000"}, {"yyyy-MM-dd N", "2024-07-04 43200000000000"},
        {"yyyy-MM-dd HH:mm:ss", "2024-07-04 12:00:60"}, {"yyyy-MM-dd HH:mm:ss", "2024-07-04 12:00:00 "}, {"yyyy-MM-dd HH:mm:ss", " 2024-07-04 12:00:00"},
        {"yyyy-MM-dd HH:mm:ss", "2024-07-04T12:00:00"}, {"yyyy-MM-dd HH:mm:ss", "٢٠٢٤-07-04 12:00:00"}, {"yyyy-MM-dd HH:mm:ss", ""},
        {"G yyyy-MM-dd HH:mm", "AD 2024-07-04 12:00"}, {"G yyyy-MM-dd HH:mm", "BC 0001-07-04 12:00"}, {"G yyyy-MM-dd HH:mm", "BC 0000-07-04 12:00"},
        {"G uuuu-MM-dd HH:mm", "BC 0001-07-04 12:00"}, {"G uuuu-MM-dd HH:mm", "AD 0001-07-04 12:00"}, {"yyyy-uuuu-MM-dd HH:mm", "2024-2023-07-04 12:00"},
        {"yyyy-yy-MM-dd HH:mm", "2024-24-07-04 12:00"}, {"yyyy-yy-MM-dd HH:mm", "1924-24-07-04 12:00"}, {"ppd/ppM/yyyy HH:mm", " 4/ 7/2024 12:00"},
        {"ppd/ppM/yyyy HH:mm", "4/7/2024 12:00"}, {"ppd/ppM/yyyy HH:mm", "14/07/2024 12:00"}, {"ppd/ppM/yyyy HH:mm", "  /07/2024 12:00"},
        {"yyyyMMd HHmm", "2024074 1200"}, {"yyyyMMd HHmm", "20240704 1200"}, {"dMyyyy HH:mm", "472024 12:00"}, {"yMMdd HH:mm", "20240704 12:00"},
        {"yMMdd HH:mm", "240704 12:00"}, {"yMMdd HH:mm", "120240704 12:00"}, {"Hmm yyyy-MM-dd", "605 2024-07-04"}, {"Hmm yyyy-MM-dd", "1605 2024-07-04"},
        {"Hmm yyyy-MM-dd", "05 2024-07-04"}, {"yyyyMMddHHmmss", "20240704060509"}, {"yyyyMMddHHmmss", "+120240704060509"}, {"yyyyMMddHHmmss", "120240704060509"},
        {"yyyyMMddHHmmss", "2024070406050"}, {"yyyyMMdd HHmmssSSS", "20240704 060509123"}, {"yyyyMMdd HHmmssSSS", "20240704 06050912"},
        {"g HH:mm", "60495 12:00"}, {"g HH:mm", "-5 12:00"}, {"yyyy-MM-dd HH:mm", "2024-03-31 02:30"}, {"yyyy-MM-dd HH:mm", "2024-10-27 02:30"},
        {"yyyy-MM-dd HH:mm", "2024-03-10 02:30"}, {"yyyy-MM-dd HH:mm", "2024-11-03 01:30"},
    };

    static String line(String... parts) {
        return String.join("\t", parts);
    }

    static String read(String pattern, String zone, String text) {
        try {
            return "" + format(pattern, zone).parse(text, Instant::from).toEpochMilli();
        } catch (DateTimeException | ArithmeticException error) {
            return "!";
        }
    }

    static DateTimeFormatter format(String pattern, String zone) {
        return DateTimeFormatter.ofPattern(pattern, Locale.US).withZone(ZoneId.of(zone));
    }

    public static void main(String[] arguments) throws Exception {
        List<String> out = new ArrayList<>();
        out.add("# Made by JavaDates.java, beside this file, with Java " + System.getProperty("java.version")
            + " and the locale en-US: java JavaDates.java > java_dates.tsv");
        out.add("# write: pattern, zone, milliseconds, text. read: pattern, zone, text, milliseconds. ! is a refusal.");
        int turn = 0;
        for (String pattern : PATTERNS) {
            for (int offset = 0; offset < 2; offset++) {
                // Two zones for each pattern, and a few of the timestamps, in turn.
                String zone = ZONES[turn % ZONES.length];
                for (int at = turn++ % 7; at < MILLIS.length; at += 7) {
                    String text;
                    try {
                        text = format(pattern, zone).format(Instant.ofEpochMilli(MILLIS[at]));
                    } catch (DateTimeException error) {
                        text = "!";
                    }
                    out.add(line("write", pattern, zone, "" + MILLIS[at], text));
                    if (!text.equals("!")) {
                        out.add(line("read", pattern, zone, text, read(pattern, zone, text)));
                    }
                }
            }
        }
        for (String[] each : TEXTS) {
            for (int offset = 0; offset < 2; offset++) {
                String zone = ZONES[offset];
                out.add(line("read", each[0], zone, each[1], read(each[0], zone, each[1])));
            }
        }
        System.out.write((String.join("\n", new LinkedHashSet<>(out)) + "\n").getBytes("UTF-8"));
        System.out.flush();
    }
}
