"""duodaq: two instrument runtimes side by side over one set of laboratory hardware."""
