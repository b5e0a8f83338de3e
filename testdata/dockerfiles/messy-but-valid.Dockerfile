FROM  alpine:3.20	 AS   base  


   # an indented comment
  RUN   echo  one   &&  \

# a comment between

      echo two\
  	
ENV A=1   B="two words"  C=three\ words
env D e f
LaBeL x=y
From base as Second
Copy [ "a b", "c\\d", "/e f/" ]
CMD [ "unterminated
ENTRYPOINT ["a",]
VOLUME /a    /b
USER   "app user":staff
WORKDIR relative/./path/
EXPOSE 80/TCP 127.0.0.1:8080:80 3000-3010/udp
RUN []
RUN echo "no # comment" # passed on
