// One name node and one data node, in this process, for tests: FOLDER RPC-PORT HTTP-PORT ["again"]
//
// Says `ready` when both serve. Ends when its input does, so that it does not outlive who started it.

import java.io.File;
import org.apache.hadoop.conf.Configuration;
import org.apache.hadoop.hdfs.MiniDFSCluster;

public class Hdfs {
  public static void main(String[] arguments) throws Exception {
    Configuration settings = new Configuration();
    settings.setBoolean("dfs.permissions.enabled", true);
    settings.setBoolean("dfs.namenode.datanode.registration.ip-hostname-check", false);
    settings.setInt("dfs.namenode.safemode.extension", 0);
    MiniDFSCluster cluster =
        new MiniDFSCluster.Builder(settings, new File(arguments[0]))
            .numDataNodes(1)
            .format(arguments.length == 3)
            .nameNodePort(Integer.parseInt(arguments[1]))
            .nameNodeHttpPort(Integer.parseInt(arguments[2]))
            .build();
    cluster.waitActive();
    System.out.println("ready");
    while (System.in.read() >= 0) {}
    cluster.shutdown();
    System.exit(0);
  }
}
