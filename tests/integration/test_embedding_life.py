"""The API's promises about beginning and end, and what a mutant of it would break."""


def test_an_exception_in_with_ends_it_at_once(program):
    found, _ = program("""
        try:
            with cluster_of("holds_connections.py", ready_when="listening") as cluster:
                drive_until(cluster, lambda: names().count("ready") == 2)
                raise KeyError("mine")
        except KeyError:
            signals = [details["signal"] for name, _, details in seen if name == "exit"]
            print(json.dumps([signals, cluster.exit_code]))
        """)
    assert found == [["SIGKILL", "SIGKILL"], 0]


def test_it_starts_once(program):
    found, _ = program("""
        cluster, refused = cluster_of(), []
        def again():
            try:
                cluster.start()
            except RuntimeError as error:
                refused.append(str(error))
        cluster.start()
        again()
        cluster.terminate()
        cluster.wait()
        again()
        print(json.dumps([refused, names().count("exit")]))
        """)
    assert found == [["the cluster was started before"] * 2, 2]


def test_terminate_after_the_end_calls_back(program):
    found, _ = program("""
        cluster, called = cluster_of(), []
        cluster.start()
        cluster.terminate(lambda: called.append("first"))
        cluster.wait()
        cluster.terminate(lambda: called.append("late"))
        cluster.shutdown()
        print(json.dumps(called))
        """)
    assert found == ["first", "late"]


def test_scale_makes_room_for_descriptors(program):
    found, _ = program("""
        import resource
        hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        cluster = cluster_of(workers=1)
        cluster.start()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        cluster.scale(20)
        after = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        cluster.terminate()
        cluster.wait()
        print(json.dumps([before, after, hard]))
        """)
    before, after, hard = found
    assert before == 256
    assert after >= min(hard, 900)


def test_lines_of_threads_stay_whole(program):
    found, said = program("""
        cluster = cluster_of("sends_from_threads.py", workers=1)
        cluster.start()
        def messages():
            said = [details["message"] for name, _, details in seen if name == "message"]
            return [message for message in said if isinstance(message, list)]
        drive_until(cluster, lambda: len(messages()) == 80)
        cluster.terminate()
        cluster.wait()
        whole = [text == chr(97 + number) * 100_000 for number, _, text in messages()]
        print(json.dumps([all(whole), sorted(message[:2] for message in messages())]))
        """)
    assert found == [True, [[number, turn] for number in range(8) for turn in range(10)]]
    assert "not JSON" not in said
