from migration_platform_tests.tables import copy_table, create_table, insert_rows, rows_of


def test_three_rows_arrive(connection, reader, keyspace):
    a = create_table(connection, keyspace, "a", "k text PRIMARY KEY, v int")
    b = create_table(connection, keyspace, "b", "k text PRIMARY KEY, v int")
    insert_rows(connection, a, [{"k": "1", "v": 1}, {"k": "2"}, {"k": "3", "v": None}])
    counts = copy_table(connection, a, b)
    assert (counts.read, counts.written, counts.complete) == (3, 3, True)
    assert rows_of(reader, b) == rows_of(reader, a)
