// One GET by Java's standard library as it is; with API_KEY set it is sent as a bearer token.
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;

public class Get {
    public static void main(String[] arguments) throws Exception {
        HttpRequest.Builder builder = HttpRequest.newBuilder(URI.create(arguments[0]));
        String key = System.getenv("API_KEY");
        if (key != null) {
            builder.header("Authorization", "Bearer " + key);
        }
        HttpRequest request = builder.build();
        HttpResponse<String> answer =
            HttpClient.newHttpClient().send(request, HttpResponse.BodyHandlers.ofString());
        System.out.println(answer.statusCode());
        System.out.println(answer.body());
    }
}
