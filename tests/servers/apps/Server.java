// The facts by the JDK's own HTTP server.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.file.Files;
import java.nio.file.Path;

public class Server {
    public static void main(String[] words) throws Exception {
        String version = Files.readString(Path.of("version.txt")).substring(0, 1);
        byte[] body = String.format("{\"version\": \"%s\", \"worker\": \"%s\", \"pid\": %d}", version,
            System.getenv("WORKER_ID"), ProcessHandle.current().pid()).getBytes();
        int port = Integer.parseInt(words[0]);
        HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", port), 0);
        server.createContext("/", exchange -> {
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        Runtime.getRuntime().addShutdownHook(new Thread(() -> server.stop(5)));
        server.start();
    }
}
